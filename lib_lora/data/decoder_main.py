"""The child of `data/decoder_process.py`: decodes the pictures it is told, one after the other, and tells their sizes and hashes.

It ends with its input, and by itself where a picture keeps it: its parent may be gone, and a stuck decoder lets no Python run.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import sys
from pathlib import Path

from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_files import NotNowError, file_content, image_size, is_deep, on_white, reading, upright
from lib_lora.errors import DatasetError

READY = "train-lora reader"  # the first line of ours; whatever else starts with a Python may write before it
GRACE_S = 5.0  # so much longer than its parent waits


def main() -> None:
    """Lines of JSON: a path comes in; `{"size": [height, width], "sha256": …}` or `{"problems": […]}` goes out.

    Ends with its input.

    The last argument: the seconds that its parent waits for a picture.
    """
    seconds = float(sys.argv[-1]) + GRACE_S
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # decoders written in C have things to say
        os.dup2(nowhere, stream.fileno())
    print(f"\n{READY}", file=answers, flush=True)
    for line in sys.stdin:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        print(json.dumps(answer(Path(json.loads(line)))), file=answers, flush=True)
        faulthandler.cancel_dump_traceback_later()


def answer(path: Path) -> dict[str, object]:
    """What the picture is found to be, decoded whole: a file that is cut off shows only then.

    `for_now`: the file is not to blame, another time it may be read.
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
    """Everything that `load_pixels` has Pillow do."""
    with reading(path, content) as image:
        picture = upright(image)
        if not is_deep(picture):
            on_white(picture)


if __name__ == "__main__":
    main()
