"""Runs in threads of their own, their progress, and the queue."""
