"""Every LoRA that lies there through the webui's metadata reader, page builder and editor."""

from __future__ import annotations

import traceback
from typing import Any
from unittest import mock

import networks
from modules import errors, shared
from ui_extra_networks_lora import ExtraNetworksPageLora


def problems(mark: str) -> dict[str, Any]:
    """What went wrong, how many were listed, and whether `mark` stands anywhere in the page as HTML."""
    told: list[str] = []

    def note(*_: Any, **__: Any) -> None:
        told.append(traceback.format_exc())

    with mock.patch.object(errors, "display", note), mock.patch.object(errors, "report", note), \
            mock.patch.object(shared.opts, "lora_show_all", True):  # fmt: skip
        page = ExtraNetworksPageLora()
        page.refresh()
        html = _try(told, "page", page.create_html, "txt2img") or ""
        editor = page.create_user_metadata_editor(None, "txt2img")
        for name in list(networks.available_networks):
            found = _try(told, name, editor.put_values_into_components, name)
            html += str(found[2]) + str(found[0]) if found else ""
            _try(told, name, editor.generate_random_prompt, name)
    return {"problems": told[:5], "listed": sorted(networks.available_networks), "as_html": mark in html, "length": len(html)}


def _try(told: list[str], what: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception:
        told.append(f"{what!r}: {traceback.format_exc()}")
        return None
