"""Settings that are chosen for the user, and what is odd about settings and runs: pure functions."""
