"""What the routes of the end-to-end tests do inside the webui."""
