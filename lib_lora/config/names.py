"""Legal names of a LoRA, and whether a name is taken.

The webui uses the name as a file name, a prompt alias and a metadata value; it must be legal as all three.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from lib_lora.config.options import shown
from lib_lora.paths import is_device

MAX_BYTES = 100
_FORBIDDEN_CHARACTERS = set('<>:"/\\|?*')
_FORBIDDEN_ALIASES = {"none", "addams"}  # the webui's Lora extension never resolves these
_LORA_SUFFIXES = {".safetensors", ".pt", ".ckpt"}


def name_problem(name: str) -> str | None:
    """Why `name` is not legal for a LoRA, as a sentence; None if it is."""
    start = f"Name (name): got {shown(name)}, "
    if not name.strip():
        return "Name (name): is empty; give the LoRA a name, such as my_cat."
    if any(c in _FORBIDDEN_CHARACTERS or unicodedata.category(c) in {"Cc", "Cf", "Cs"} for c in name):
        return start + 'it must be a plain file name without a path or any of < > : " / \\ | ? *.'
    if not all(c.isalnum() or c in " _-.+()" or unicodedata.category(c).startswith("M") for c in name):
        return start + "it may contain only letters, digits, spaces and _ - . + ( )."
    if any(c.isdigit() and not c.isdecimal() for c in name):  # such as ², on which the webui's sorting of cards fails
        return start + "it must not contain superscript, subscript or circled digits; use 0 to 9."
    if any(part.isdigit() for part in re.split("[0-9]+", name)[:-1]):  # that sorting compares a number with a string
        return start + "it has digits of another script directly before 0 to 9; use digits of one script."
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return start + "it must not start or end with a dot or a space."
    if len(name.encode()) > MAX_BYTES:
        return start + f"it is too long; at most {MAX_BYTES} bytes."
    if is_device(name) or name.lower() in _FORBIDDEN_ALIASES:
        return start + "this name is reserved; choose another."
    return None


def taken_problem(name: str, folder: Path, *, overwrite: bool) -> str | None:
    """A sentence that `name` is taken in `folder`, with the next free name; None if it is not taken."""
    taken = [path for path in _loras_below(folder) if path.stem.casefold() == name.casefold()]
    elsewhere = [path for path in taken if path != folder / f"{name}.safetensors"]
    if overwrite and elsewhere:
        where = elsewhere[0].relative_to(folder)
        return (
            f"Name (name): {name!r} is also the name of {str(where)!r}, which is not overwritten; use "
            f"{next_free(name, folder)!r}."
        )
    if overwrite or not taken:
        return None
    return f"Name (name): {name!r} is taken; use {next_free(name, folder)!r}, or turn on Overwrite (overwrite)."


def taken_between_problem(
    name: str, folder: Path, *, epochs: bool, steps: bool, resumed_at: tuple[int, int] = (0, 0)
) -> str | None:
    """A sentence that a file which the run would save before its end exists already; None if none does.

    Args:
        name: the LoRA's name.
        folder: the LoRA folder.
        epochs: whether files are saved by epochs, such as `NAME-000001`.
        steps: whether files are saved by steps, such as `NAME-step00000500`.
        resumed_at: epoch and step of the state that the run resumes from; files up to there are its own.
    """
    endings = [(r"-(\d{6,})", resumed_at[0])] * epochs + [(r"-step(\d{8,})", resumed_at[1])] * steps
    for path in _loras_below(folder):
        for ending, own in endings:
            found = re.fullmatch(re.escape(name.casefold()) + ending, path.stem.casefold())
            if found and int(found[1]) > own:
                return (
                    f"Name (name): {path.stem!r} exists already, and this run would save files with such names; use "
                    f"{next_free(name, folder)!r}, or turn on Overwrite (overwrite)."
                )
    return None


def next_free(name: str, folder: Path) -> str:
    """`name` with the smallest of -2, -3, … that no LoRA below `folder` has."""
    stems = {path.stem.casefold() for path in _loras_below(folder)}
    number = 2
    while f"{name}-{number}".casefold() in stems:
        number += 1
    return f"{name}-{number}"


def _loras_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _LORA_SUFFIXES) if folder.is_dir() else []
