"""The trainer, its step, and what both need: precision, optimizer, schedule, latents, contexts, states."""
