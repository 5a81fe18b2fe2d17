"""What the trainer needs of a base model, and the adapters it attaches to it."""
