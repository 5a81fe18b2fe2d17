"""How every program names the layers of a LoRA, and what they are called here."""
