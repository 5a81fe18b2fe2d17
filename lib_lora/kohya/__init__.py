"""Import and export of kohya's settings files."""
