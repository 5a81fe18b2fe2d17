"""Pictures that an older version left under names of their own: they get hidden ones, once."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lib_lora.data.hidden_names import hidden_name
from lib_lora.files.locks import held_elsewhere
from lib_lora.jobs.owners import LOCK

log = logging.getLogger(__name__)


def hide_pictures(private: Path) -> int:
    """Rename all pictures below `private`, but in folders of jobs that run elsewhere; returns how many there were.

    Whoever reads these folders takes both names for the same picture, so an end at any moment leaves nothing in between.
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
