"""Putting a finished LoRA where the host finds it: file, self-test, card, preview; the old file survives until all is well."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lib_lora.config.groups import TrainConfig
from lib_lora.config.names import taken_problem
from lib_lora.data.images import Pixels
from lib_lora.errors import ConfigError
from lib_lora.model.base import Host
from lib_lora.output.card import write_card, write_preview
from lib_lora.output.lora_file import write


@dataclass(frozen=True)
class Result:
    """What a run made: the bytes of the LoRA file and, where wanted, a picture `[height, width, 3]`."""

    content: bytes
    preview: Pixels | None


def publish(config: TrainConfig, host: Host, result: Result) -> Path:
    """Write `NAME.safetensors` and what stands beside it, checked by the host's own loader.

    Raises:
        ConfigError: the name was taken meanwhile.
        LoraFileError: the file cannot be written, or does not load; what was there before is there again.
    """
    name, folder = config.run.name, host.lora_folder()
    problem = taken_problem(name, folder, overwrite=config.run.overwrite)
    if problem:
        raise ConfigError([problem])
    path, backup = folder / f"{name}.safetensors", folder / f"{name}.safetensors.bak"
    if path.exists():
        shutil.copyfile(path, backup)
    try:
        write(path, result.content)
        host.check_lora(path)
    except BaseException:
        if backup.exists():
            backup.replace(path)
        else:
            path.unlink(missing_ok=True)
        raise
    write_card(path, activation_text=config.text.trigger, sd_version="SD1", preferred_weight=1.0)
    if result.preview is not None:
        write_preview(path, result.preview)
    host.announce(path)
    backup.unlink(missing_ok=True)
    return path
