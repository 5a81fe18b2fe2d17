"""Small real photos to train on."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

# name -> size, and the caption that its text file holds
PHOTOS = {
    "cat": ((180, 120), "a cat looks at you"),
    "woman": ((128, 128), "a woman in a space suit"),
    "cup": ((150, 100), "a cup of coffee"),
    "rocket": ((128, 128), None),
}


def write_photos(folder: Path, names: tuple[str, ...] = tuple(PHOTOS)) -> Path:
    """Write the named photos, and captions where they have one."""
    from skimage import data

    sources = {"cat": data.chelsea, "woman": data.astronaut, "cup": data.coffee, "rocket": data.rocket}
    folder.mkdir(parents=True)
    for name in names:
        size, caption = PHOTOS[name]
        Image.fromarray(sources[name]()).resize(size).save(folder / f"{name}.jpg", quality=92)
        if caption:
            (folder / f"{name}.txt").write_text(caption)
    return folder
