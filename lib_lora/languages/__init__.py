"""Messages in the host's language: they are made in English, and translated where they leave the program."""
