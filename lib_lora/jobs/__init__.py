"""A run in a thread of its own, and what can be seen of it from outside."""
