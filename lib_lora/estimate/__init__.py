"""Estimates a run's memory before it begins."""
