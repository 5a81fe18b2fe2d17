"""Compares our training step and data path with recordings of sd-scripts."""
