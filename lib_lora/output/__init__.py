"""What a run leaves behind: the LoRA file with its metadata, and the card beside it."""
