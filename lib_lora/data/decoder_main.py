"""The child process of `data/decoder_process.py`: decodes images one after the other, and returns their sizes and hashes.

It ends with its input, or if an image takes too long: its parent may be gone, and no Python code runs in a stuck decoder.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import sys
from pathlib import Path

from lib_lora.data.conversion import written
from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_files import NotNowError, file_content, image_size, is_deep, on_white, reading, upright
from lib_lora.errors import DatasetError

READY = "train-lora reader"  # our first line; other code that starts with Python may write before it
GRACE_S = 5.0  # added to the parent's time limit


def main() -> None:
    """Read paths as lines of JSON; write `{"size": [height, width], "sha256": …}` or `{"problems": […], "for_now": …}` for each.

    A request to write an image is an object (`conversion.written`).
    The last command line argument is the parent's time limit per image, in seconds.
    """
    seconds = float(sys.argv[-1]) + GRACE_S
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # decoders in C may print
        os.dup2(nowhere, stream.fileno())
    print(f"\n{READY}", file=answers, flush=True)
    for line in sys.stdin:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        asked = json.loads(line)
        print(json.dumps(written(asked) if isinstance(asked, dict) else answer(Path(asked))), file=answers, flush=True)
        faulthandler.cancel_dump_traceback_later()


def answer(path: Path) -> dict[str, object]:
    """Size and hash of the image, or problems. It is decoded whole, since truncation shows only then.

    `for_now`: the problem may pass although the file stays the same.
    """
    try:
        content = file_content(path)
        size = image_size(path, content)
        decode(path, content)
    except DatasetError as error:
        return {"problems": error.problems, "for_now": isinstance(error, NotNowError)}
    except MemoryError:
        return {
            "problems": [f"Image {given_name(path)!r} needs more memory than is free; shrink or remove it."],
            "for_now": True,
        }
    return {"size": [size.height, size.width], "sha256": hashlib.sha256(content).hexdigest()}


def decode(path: Path, content: bytes) -> None:
    """Run all of Pillow's work in `load_pixels`."""
    with reading(path, content) as image:
        picture = upright(image)
        if not is_deep(picture):
            on_white(picture)


if __name__ == "__main__":
    main()
