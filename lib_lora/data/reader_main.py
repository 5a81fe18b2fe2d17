"""The child of `data/reader.py`: decodes the pictures it is told, one after the other, and tells their sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lib_lora.data.opening import image_size, is_deep, on_white, reading, upright
from lib_lora.errors import DatasetError


def main() -> None:
    """Lines of JSON: a path comes in; `{"size": [height, width]}` or `{"problems": […]}` goes out. Ends with its input."""
    for line in sys.stdin:
        print(json.dumps(answer(Path(json.loads(line)))), flush=True)


def answer(path: Path) -> dict[str, object]:
    """What the picture is found to be, decoded whole: a file that is cut off shows only then."""
    try:
        size = image_size(path)
        decode(path)
    except DatasetError as error:
        return {"problems": error.problems}
    except MemoryError:
        return {"problems": [f"Image {path.name!r} needs more memory than there is; shrink or remove it."]}
    return {"size": [size.height, size.width]}


def decode(path: Path) -> None:
    """Everything that `load_pixels` has Pillow do."""
    with reading(path) as image:
        picture = upright(image)
        if not is_deep(picture):
            on_white(picture)


if __name__ == "__main__":
    main()
