"""The tab in a webui that lacks what the extension needs."""

from __future__ import annotations

import gradio as gr

from lib_lora import __version__
from lib_lora.ui.report import list_html


def build(reason: str) -> gr.Blocks:
    """A tab with one message that contains the reason."""
    told = (
        f"Train LoRA {__version__} does not work in this webui, which works without it: {reason}. It needs "
        "stable-diffusion-webui 1.10 with its built-in Lora extension; update the webui, or disable this extension."
    )
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(list_html([told], "problem"), elem_id="train_lora_missing")
    return blocks
