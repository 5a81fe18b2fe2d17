"""The model families that can be trained: a room each, with what tells it apart from others. Nothing is loaded here."""
