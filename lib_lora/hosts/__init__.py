"""The programs that lend a model: the webui in place, and a standalone host through diffusers."""
