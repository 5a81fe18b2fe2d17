"""What is read and written, whatever it means: safetensors files, states, atomic writing, locks."""
