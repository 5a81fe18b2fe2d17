"""The child process of `data/decoder_process.py`: decodes images one after the other, and returns their sizes and hashes.

A request is a line of JSON: a path, or an object. `{"path": …, "header": true}` asks for the size alone, which needs no decoding.
`{"path": …, "thumbnail": path, "side": pixels}` asks for all of `ImageFacts`, and for a JPEG at that path; a large JPEG is then
decoded to fewer pixels, which is faster. Those of `conversion` and `mask_files` write images and measure masks.

It ends with its input, or if an image takes too long: its parent may be gone, and no Python code runs in a stuck decoder.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from lib_lora.data.conversion import written
from lib_lora.data.hidden_names import given_name
from lib_lora.data.image_facts import (
    LOOKED_AT,
    deep_as_rgb,
    difference_hash,
    is_transparent,
    reduced,
    save_thumbnail,
    sharpness,
    size_within,
    small_grey,
)
from lib_lora.data.image_files import (
    NotNowError,
    file_content,
    image_size,
    is_deep,
    is_turned,
    on_white,
    reading,
    upright,
    upright_size,
)
from lib_lora.data.mask_files import measured, written_mask
from lib_lora.data.sizes import Size
from lib_lora.errors import DatasetError

READY = "train-lora reader"  # our first line; other code that starts with Python may write before it
GRACE_S = 5.0  # added to the parent's time limit


class Decoded(NamedTuple):
    """The upright image, as RGB too unless it is deep, and whether EXIF had it turned. `size`: that of the file's image.

    `whole`: it was decoded to all of its pixels.
    """

    picture: Image.Image
    rgb: Image.Image | None
    turned: bool
    size: Size
    whole: bool = True


class Thumbnail(NamedTuple):
    """Where a thumbnail is written, and its longest side in pixels."""

    path: Path
    side: int


def main() -> None:
    """Answer each line with `{"size": [height, width], "sha256": …}` or `{"problems": […], "for_now": …}`.

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
        print(json.dumps(answer_to(json.loads(line))), file=answers, flush=True)
        faulthandler.cancel_dump_traceback_later()


def answer_to(asked: Any) -> dict[str, object]:
    """The answer to a request: a path, or an object."""
    if isinstance(asked, str):
        return answer(Path(asked))
    if "mask" in asked:
        return written_mask(asked) if "target" in asked else measured(asked)
    if "target" in asked:
        return written(asked)
    path = Path(asked["path"])
    if "thumbnail" in asked:
        return answer(path, Thumbnail(Path(asked["thumbnail"]), asked["side"]))
    try:
        size = image_size(path)
    except DatasetError as error:
        return {"problems": error.problems, "for_now": isinstance(error, NotNowError)}
    return {"size": [size.height, size.width]}


def answer(path: Path, thumbnail: Thumbnail | None = None) -> dict[str, object]:
    """Size and hash of the image, or problems. All of its data are decoded, since truncation shows only then.

    `for_now`: the problem may pass although the file stays the same. With `thumbnail` all facts; `unsaved` says why it was
    not written, if it was not, and `whole` is there, and false, if fewer pixels were made than the image has.
    """
    try:
        content = file_content(path)
        decoded = decode(path, content, 0 if thumbnail is None else max(thumbnail.side, LOOKED_AT))
        size = decoded.size
        facts = {} if thumbnail is None else looked_at(decoded, thumbnail)
    except DatasetError as error:
        return {"problems": error.problems, "for_now": isinstance(error, NotNowError)}
    except MemoryError:
        return {
            "problems": [f"Image {given_name(path)!r} needs more memory than is free; shrink or remove it."],
            "for_now": True,
        }
    return {"size": [size.height, size.width], "sha256": hashlib.sha256(content).hexdigest(), **facts}


def decode(path: Path, content: bytes, side: int = 0) -> Decoded:
    """Run all of Pillow's work in `load_pixels`.

    `side`: of a JPEG, pixels are made only until the longest side has so many, 0 for all. Its data are read to the end in either
    case, so what is damaged is told in the same words.
    """
    with reading(path, content) as image:
        turned, size, pixels = is_turned(image), upright_size(image), image.size
        if side:
            image.draft(None, size_within(pixels, side))
        whole = image.size == pixels
        picture = upright(image)
        return Decoded(picture, None if is_deep(picture) else on_white(picture), turned, size, whole)


def looked_at(decoded: Decoded, thumbnail: Thumbnail) -> dict[str, object]:
    """The facts of a decoded image; its thumbnail is written."""
    rgb = reduced(decoded.rgb or deep_as_rgb(decoded.picture), max(thumbnail.side, LOOKED_AT))
    grey = small_grey(rgb)
    unsaved = ""
    try:
        save_thumbnail(rgb, thumbnail.path, thumbnail.side)
    except OSError as error:
        unsaved = error.strerror or str(error)
    return {
        "turned": decoded.turned,
        "transparent": is_transparent(decoded.picture),
        "hash": f"{difference_hash(grey):016x}",
        "sharpness": sharpness(grey),
        "unsaved": unsaved,
        **({} if decoded.whole else {"whole": False}),
    }


if __name__ == "__main__":
    main()
