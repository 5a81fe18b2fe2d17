"""The embedded tiny checkpoint: a miniature Stable Diffusion 1.x for tests and first trials.

docs/tiny.md shows what it draws; `tools/tiny` made it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import safe_open

from lib_lora.hosts.ldm_config import write_beside

EMBEDDED = Path(__file__).resolve().parent / "assets" / "tiny" / "tiny-sd1.safetensors"


def write_tiny(folder: Path) -> Path:
    """Write the checkpoint into `folder` with the yaml and text encoder folder that a webui needs; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EMBEDDED.name
    shutil.copyfile(EMBEDDED, path)
    with safe_open(path, framework="pt") as file:
        write_beside(path, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    return path
