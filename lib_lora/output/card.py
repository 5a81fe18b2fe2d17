"""What the webui shows of a LoRA: `NAME.json` with the trigger word, and the preview picture `NAME.png`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from lib_lora.data.images import Pixels
from lib_lora.output.atomic import write_atomically

MAX_CARD_BYTES = 2**20


def write_card(lora: Path, *, activation_text: str, sd_version: str, preferred_weight: float) -> Path:
    """Write the webui's user metadata beside `lora`; entries a person made before are kept.

    The keys are those the webui's Lora extension reads (`ui_edit_user_metadata.py`).
    """
    path = lora.with_suffix(".json")
    entries: dict[str, Any] = {
        "description": "",
        "sd version": sd_version,
        "activation text": activation_text,
        "preferred weight": preferred_weight,
        "negative text": "",
        "notes": "",
    }
    entries.update(_own_entries(path))
    entries["activation text"] = activation_text or entries["activation text"]
    entries["sd version"] = sd_version
    write_atomically(path, json.dumps(entries, ensure_ascii=False, indent=4).encode())
    return path


def write_preview(lora: Path, pixels: Pixels) -> Path:
    """Write the picture beside `lora`. Shapes: pixels `[height, width, 3]`."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    path = lora.with_suffix(".png")
    write_atomically(path, content.getvalue())
    return path


def _own_entries(path: Path) -> dict[str, Any]:
    """What stands in an existing card; a card that is no JSON object is set aside, since the webui cannot read it either."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_CARD_BYTES else None
        json.dumps(found)  # what is nested too deep to be written again
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    path.replace(path.with_suffix(".json.bad"))
    return {}
