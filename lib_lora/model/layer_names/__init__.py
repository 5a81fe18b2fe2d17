"""How each program names the layers of a LoRA, and the internal names of these layers."""
