"""File formats and file access: safetensors files, states, atomic writing, locks."""
