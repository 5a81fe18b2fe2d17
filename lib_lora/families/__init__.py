"""The model families that can be trained, one module each with everything specific to it. Nothing is loaded here."""
