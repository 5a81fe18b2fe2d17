"""Registers the extension with the webui; everything else is in lib_lora."""

from lib_lora.hosts.webui_hooks import register

register()
