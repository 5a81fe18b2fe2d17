"""Names under which private pictures lie: `photo.png` as `photo.pn_`.

A webui serves every file of its machine that ends as a picture does (`modules.ui_extra_networks.fetch_file` 1.10.1 looks at the
beginning and the ending of a path alone, `models/Lora/../../` included). So no private picture may end so. The name keeps its
length, since a disk takes 255 bytes; whoever reads such a folder sees the given names.
"""

from __future__ import annotations

from pathlib import Path

_LOWER, _UPPER = "_", "-"  # in place of a small and of a capital last letter
# all that is a picture's ending anywhere; the last letter of each
_LAST = {
    "pn": "g", "jp": "g", "jpe": "g", "web": "p", "bm": "p", "gi": "f", "avi": "f", "hei": "c", "ti": "f", "tif": "f", "jx": "l",
    "ps": "d", "sv": "g", "ic": "o", "ra": "w", "cr": "2", "ne": "f",
}  # fmt: skip
_ENDINGS = {start + last for start, last in _LAST.items()} | {"heif"}


def hidden_name(name: str) -> str:
    """What a picture of this name is called where it must not be served; other names stay."""
    ending = name.rpartition(".")[2]
    if ending == name or ending.lower() not in _ENDINGS:
        return name
    return name[:-1] + (_UPPER if name[-1].isupper() else _LOWER)


def given_name(path: Path) -> str:
    """The name that a file was given: its own, or the one that is hidden in it."""
    name = path.name
    start, dot, ending = name.rpartition(".")
    last = _LAST.get(ending[:-1].lower()) if start and dot and ending.endswith((_LOWER, _UPPER)) else None
    return name if last is None else name[:-1] + (last.upper() if name.endswith(_UPPER) else last)


def given_stem(path: Path) -> str:
    """The given name without its ending, as captions and masks have it."""
    return Path(given_name(path)).stem
