"""The embedded tiny checkpoint: a Stable Diffusion 1.x in miniature that draws a few things, for tests and for trying out.

What it draws is shown in docs/tiny.md; `tools/tiny` made it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import safe_open

from lib_lora.hosts.ldm_config import write_beside

EMBEDDED = Path(__file__).resolve().parent / "assets" / "tiny" / "tiny-sd1.safetensors"


def write_tiny(folder: Path) -> Path:
    """Write the checkpoint into `folder` with its yaml and text encoder folder, as a webui loads it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EMBEDDED.name
    shutil.copyfile(EMBEDDED, path)
    with safe_open(path, framework="pt") as file:
        write_beside(path, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    return path
