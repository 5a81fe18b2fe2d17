"""One step and what it needs: precision, optimizer, schedule, latents and contexts."""
