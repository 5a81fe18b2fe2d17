"""Our step and our data path, held against recordings of sd-scripts."""
