"""Caption files -> captions (pure text after reading)."""

from __future__ import annotations

from pathlib import Path

from lib_lora.errors import DatasetError

SUFFIXES = (".txt", ".caption")


def read_caption(image: Path) -> str | None:
    """First line of the caption file beside `image`, or None where there is none or it is empty.

    Raises:
        DatasetError: the file is not UTF-8 text.
    """
    for suffix in SUFFIXES:
        path = image.with_suffix(suffix)
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
            except UnicodeDecodeError as error:
                raise DatasetError([f"Caption file {path.name!r} is not UTF-8 text; save it as UTF-8."]) from error
            if lines and lines[0].strip():
                return lines[0].strip()
    return None


def with_trigger(caption: str | None, concept: str | None, trigger: str) -> str | None:
    """What is trained on: the caption, else the folder's concept, else the trigger; the trigger in front unless it is in it.

    None where there is nothing at all.
    """
    text = caption or concept
    if not text:
        return trigger or None
    return text if not trigger or trigger.casefold() in text.casefold() else f"{trigger}, {text}"
