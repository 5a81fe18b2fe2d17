"""Making the best LoRA of a run the one that bears its name."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lib_lora.config.names import next_free
from lib_lora.errors import LoraFileError
from lib_lora.files.atomic import write_atomically
from lib_lora.files.lora_file import read, serialise, write
from lib_lora.host import Host
from lib_lora.output.removal import remove_lora


def use_best(name: str, best: Path, host: Host) -> Path:
    """`NAME-best` becomes `NAME`; what was `NAME` becomes `NAME-last` and is returned. Cards stay with their names.

    At every moment all tensors are on disk under some name. What stands beside `NAME-best` and was made by somebody else stays;
    so does what the disk does not give away.

    Raises:
        LoraFileError: one of the two is not there, or cannot be written.
    """
    path = best.with_name(f"{name}.safetensors")
    for needed in (path, best):
        if not needed.is_file():
            raise LoraFileError(f"{needed.name!r} is not there any more; nothing was changed.")
    last = best.with_name(f"{name}-last.safetensors")
    if last.exists():
        last = best.with_name(f"{next_free(f'{name}-last', host.lora_folder())}.safetensors")
    write(last, _renamed(path, name, last.stem))
    write(path, _renamed(best, best.stem, name))
    card = path.with_suffix(".json")
    with suppress(OSError):  # the LoRAs have their names; a card that cannot be copied can be written again
        if card.is_file() and not os.path.lexists(last.with_suffix(".json")):
            write_atomically(last.with_suffix(".json"), card.read_bytes())
    for _ in remove_lora(best):
        pass
    for file in (last, path):
        host.announce(file)
    return last


def _renamed(path: Path, old: str, new: str) -> bytes:
    """The same tensors, with metadata that says the new name where it said the old one."""
    tensors, metadata = read(path)
    named = {key: new if key in {"ss_output_name", "modelspec.title"} and text == old else text for key, text in metadata.items()}
    return serialise(tensors, None, {key: text for key, text in named.items() if not key.startswith("sshs_")})
