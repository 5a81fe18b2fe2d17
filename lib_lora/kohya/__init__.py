"""kohya's world: what its keys become here, its files in and out."""
