"""Renaming the pictures that an older version left under visible names."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lib_lora.data.hidden_names import hidden_name
from lib_lora.files.locks import held_elsewhere
from lib_lora.jobs.owners import LOCK

log = logging.getLogger(__name__)


def hide_pictures(private: Path) -> int:
    """Give all pictures below `private` hidden names, except in folders of jobs that run elsewhere; returns their number.

    Both names are read as the same picture, so the program may end at any moment.
    """
    done, refused = 0, 0
    for folder, below, names in os.walk(private):
        below[:] = [name for name in below if not held_elsewhere(Path(folder) / name / LOCK)]
        for name in names:
            target = Path(folder) / hidden_name(name)
            if target.name == name or target.exists():
                continue
            try:
                (Path(folder) / name).rename(target)
                done += 1
            except OSError:
                refused += 1
    if refused:
        log.warning(
            "sd-webui-train-lora: %d images in %s cannot be renamed, and anyone who knows their paths can get them from the "
            "webui; check the folder's permissions.", refused, private,
        )  # fmt: skip
    return done
