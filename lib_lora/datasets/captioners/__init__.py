"""Programs that write captions."""
