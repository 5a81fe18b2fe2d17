"""The files that a run writes: the LoRA with its metadata, its card and preview, states and samples."""
