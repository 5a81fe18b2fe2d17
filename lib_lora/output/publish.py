"""Putting a finished LoRA where the host finds it, checked by the host's own loader; the old file survives until it loads."""

from __future__ import annotations

from pathlib import Path

from lib_lora.config.groups import TrainConfig
from lib_lora.config.names import next_free, taken_problem
from lib_lora.errors import LoraFileError
from lib_lora.model.base import Host
from lib_lora.output.atomic import write_atomically
from lib_lora.output.lora_file import write


def free_name(name: str, folder: Path, *, overwrite: bool) -> str:
    """`name`, or `name-2` … where it was taken during the run."""
    return next_free(name, folder) if taken_problem(name, folder, overwrite=overwrite) else name


def publish(config: TrainConfig, host: Host, content: bytes) -> Path:
    """Write `content` as `NAME.safetensors` (as `NAME-2` … if the name was taken meanwhile) and have the host load it.

    Raises:
        LoraFileError: the file cannot be written, or does not load; what was there before is there again.
    """
    folder = host.lora_folder()
    name = free_name(config.run.name, folder, overwrite=config.run.overwrite)
    path, backup = folder / f"{name}.safetensors", folder / f"{name}.safetensors.bak"
    existed, written = path.exists(), False
    try:
        if existed:
            write_atomically(backup, path.read_bytes())
        write(path, content)
        written = True
        host.check_lora(path)
    except BaseException as error:
        if written and existed:
            backup.replace(path)
        elif written:
            path.unlink(missing_ok=True)
        else:
            backup.unlink(missing_ok=True)  # the old file was not touched
        if isinstance(error, OSError):
            raise LoraFileError(f"The LoRA could not be saved as {str(path)!r} ({error}).") from error
        raise
    backup.unlink(missing_ok=True)
    return path
