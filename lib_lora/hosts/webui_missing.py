"""A tab with the reason if the extension cannot be imported."""

from __future__ import annotations

import logging
from typing import Any

from modules import script_callbacks

from lib_lora import __version__
from lib_lora.ui.tab_missing import build

log = logging.getLogger(__name__)


Tabs = list[tuple[Any, str, str]]


def tell(error: Exception) -> None:
    """Register the tab with the reason; to be called while the webui imports scripts, before it builds its page."""
    shown = tabs(error)
    script_callbacks.on_ui_tabs(lambda: shown)


def tabs(error: Exception) -> Tabs:
    """The tab with the reason, in the webui's format."""
    log.error("sd-webui-train-lora %s does not work in this webui", __version__, exc_info=error)
    return [(build(f"{type(error).__name__}: {error}"), "Train LoRA", "train_lora")]
