"""Registers the extension with the webui; everything else is in lib_lora."""

try:
    from lib_lora.hosts.webui_hooks import register
except Exception as error:  # noqa: BLE001 - whatever another webui lacks: the tab says so, and the webui starts without us
    from lib_lora.hosts.webui_missing import tell

    tell(error)
else:
    register()
