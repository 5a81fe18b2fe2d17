"""Image -> caption as it is written down: the file beside it, the folder's name, the trigger word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib_lora.data.hidden_names import given_stem
from lib_lora.data.links import leads_out, link_problem
from lib_lora.errors import DatasetError

MAX_BYTES = 2**20
DEFAULT_EXTENSION, SECOND_EXTENSION = ".txt", ".caption"


@dataclass(frozen=True)
class CaptionSource:
    """Where captions come from. With `all_lines` every line of a file is an alternative."""

    trigger: str = ""
    extension: str = DEFAULT_EXTENSION
    all_lines: bool = False
    filenames: bool = False


def read_caption(image: Path, source: CaptionSource, root: Path) -> str | None:
    """First line of the caption file beside `image` (all lines, joined by newlines, where asked for), or None.

    Raises:
        DatasetError: the file is not UTF-8 text, far longer than a caption, or a link out of the resolved folder `root`.
    """
    extensions = [source.extension] + ([SECOND_EXTENSION] if source.extension == DEFAULT_EXTENSION else [])
    for extension in extensions:
        path = image.with_name(given_stem(image) + extension)
        if path.is_symlink() and leads_out(path, root):
            raise DatasetError([f"Caption file {link_problem([path.name], root)}"])
        if path.is_file():
            if path.stat().st_size > MAX_BYTES:
                raise DatasetError([f"Caption file {path.name!r} is larger than {MAX_BYTES // 2**20} MB; shorten or remove it."])
            try:
                text = path.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise DatasetError([f"Caption file {path.name!r} is not UTF-8 text; save it as UTF-8."]) from error
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return "\n".join(lines) if source.all_lines else lines[0]
    return None


def written_caption(image: Path, written: str | None, concept: str | None, source: CaptionSource) -> str | None:
    """What is trained on: the caption file, else the file's name where that is wanted, else the folder's concept.

    Each line gets the trigger in front. None where there is nothing at all.
    """
    name = given_stem(image).replace("_", " ").strip() if source.filenames else None
    lines = (written or name or concept or "").split("\n")
    return "\n".join(with_trigger(line, source.trigger) for line in lines) or None


def with_trigger(caption: str, trigger: str) -> str:
    """The trigger in front, unless it is in the caption already."""
    if not caption or not trigger or has_trigger(caption, trigger):
        return caption or trigger
    return f"{trigger}, {caption}"


def has_trigger(text: str, trigger: str) -> bool:
    """Whether the trigger stands in `text` as a word of its own, in any case."""
    return re.search(rf"(?<!\w){re.escape(trigger.casefold())}(?!\w)", text.casefold()) is not None
