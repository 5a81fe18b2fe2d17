"""Hidden names for private images: `photo.png` is stored as `photo.pn_`.

A webui serves every file on its disk that has an image suffix (`modules.ui_extra_networks.fetch_file` 1.10.1 checks only the
start and the suffix of a path, `models/Lora/../../` included), so no private image may have one. The name keeps its length, since
a disk allows 255 bytes. Code that reads such a folder uses the given names.
"""

from __future__ import annotations

from pathlib import Path

_LOWER, _UPPER = "_", "-"  # replace a lower-case and an upper-case last letter
# image suffixes: all but the last letter -> the last letter
_LAST = {
    "pn": "g", "jp": "g", "jpe": "g", "web": "p", "bm": "p", "gi": "f", "avi": "f", "hei": "c", "ti": "f", "tif": "f", "jx": "l",
    "ps": "d", "sv": "g", "ic": "o", "ra": "w", "cr": "2", "ne": "f",
}  # fmt: skip
_ENDINGS = {start + last for start, last in _LAST.items()} | {"heif"}


def hidden_name(name: str) -> str:
    """The name under which an image is not served; other names are returned unchanged."""
    ending = name.rpartition(".")[2]
    if ending == name or ending.lower() not in _ENDINGS:
        return name
    return name[:-1] + (_UPPER if name[-1].isupper() else _LOWER)


def given_name(path: Path) -> str:
    """The given name of a file, which may have a hidden name."""
    return given(path.name)


def given(name: str) -> str:
    """As `given_name`, of a name alone."""
    start, dot, ending = name.rpartition(".")
    last = _LAST.get(ending[:-1].lower()) if start and dot and ending.endswith((_LOWER, _UPPER)) else None
    return name if last is None else name[:-1] + (last.upper() if name.endswith(_UPPER) else last)


def given_stem(path: Path) -> str:
    """The given name without its suffix, as captions and masks have it."""
    name = given(path.name)
    return name[: len(name) - len(suffix_of(name))]


def suffix_of(name: str) -> str:
    """`Path(name).suffix` of a name without folders; folders are listed again and again, and a Path takes its time."""
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""
