"""The card of a LoRA in the webui: `NAME.json` with the trigger word; the preview beside it is `NAME.png`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lib_lora.errors import LoraFileError
from lib_lora.files.atomic import free_path, write_atomically

MAX_CARD_BYTES = 2**20
# the keys that the webui's editor writes (`ui_edit_user_metadata.py`), with their empty values
EMPTY: dict[str, Any] = {
    "description": "", "sd version": "", "activation text": "", "preferred weight": 1.0, "negative text": "", "notes": "",
}  # fmt: skip
_WRITTEN_BY_US = ("sd version", "activation text")


def write_card(lora: Path, *, activation_text: str, sd_version: str, preferred_weight: float) -> Path:
    """Write the webui's user metadata beside `lora`; entries that the user wrote are kept.

    A card that is not a JSON object is renamed, since the webui cannot read it either.

    Raises:
        LoraFileError: something else has the card's name; it is left unchanged.
    """
    path = lora.with_suffix(".json")
    found = _found(path)
    other = path.exists() and not path.is_file()
    if other or (found and set(found).isdisjoint(EMPTY)):
        raise LoraFileError(f"{path.name!r} is not a card of the webui and was not changed")
    entries = {**EMPTY, "preferred weight": preferred_weight, **(found or {})}
    entries["activation text"] = activation_text or entries["activation text"]
    entries["sd version"] = sd_version
    if found is None and os.path.lexists(path):
        path.replace(free_path(path.with_suffix(".json.bad")))
    write_atomically(path, json.dumps(entries, ensure_ascii=False, indent=4).encode(errors="replace"))
    return path


def nobody_wrote(card: Path) -> bool:
    """Whether a card holds only what this program writes.

    Raises:
        OSError: it cannot be read.
    """
    found = None if card.is_symlink() else _found(card)
    if found is None or set(found) != set(EMPTY):
        return False
    return all(found[key] == empty for key, empty in EMPTY.items() if key not in _WRITTEN_BY_US)


def _found(path: Path) -> dict[str, Any] | None:
    """The entries of a card; None if it does not exist or is not a JSON object."""
    if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(found)  # fails if it is nested too deep to be written again
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
