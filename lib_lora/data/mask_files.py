"""Mask images in the decoder process: what one covers, and those that are painted on the page, written as grey PNGs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from lib_lora.data.edits import size_in
from lib_lora.data.folders import KINDS
from lib_lora.data.image_facts import deep_as_rgb, is_transparent
from lib_lora.data.image_files import NotNowError, file_content, image_size, is_deep, on_white, reading, upright
from lib_lora.data.sizes import Crop, Size
from lib_lora.errors import DatasetError

_BLACK = "would be black everywhere, so nothing of the image would be learned; leave the image out instead"


def measured(request: Mapping[str, Any]) -> dict[str, object]:
    """Size, hash and mean of the mask at `mask`: `{"size": [height, width], "sha256": …, "covered": 0 to 1}`.

    `crop`: edges of the part that the mean is of; None for all of it, as where the part does not exist.
    """
    path = Path(request["mask"])

    def answer() -> dict[str, object]:
        content = file_content(path)
        grey = _red(path, content)
        size = Size(grey.height, grey.width)
        crop = None if request["crop"] is None else Crop(*request["crop"])
        part = grey if crop is None or size_in(crop, size) is None else grey.crop(crop)
        return {"size": list(size), "sha256": hashlib.sha256(content).hexdigest(), "covered": _covered(part)}

    return _told(answer, path.name)


def written_mask(request: Mapping[str, Any]) -> dict[str, object]:
    """Write a mask for the image at `image` to `target`; the answer is `{"covered": 0 to 1}`, or problems.

    `how`: painted, inverted, transparency or filled. `mask`: the mask that was painted, or is inverted. `name`: of the image, for
    messages.
    """
    name, image = str(request["name"]), Path(request["image"])

    def answer() -> dict[str, object]:
        made = _made(str(request["how"]), image, Path(request["mask"] or ""), name)
        covered = _covered(made)
        if covered == 0:
            raise DatasetError([f"The mask of {name!r} {_BLACK}."])
        try:
            made.save(Path(request["target"]), "PNG")
        except OSError as error:
            why = error.strerror or error
            raise NotNowError([f"The mask of {name!r} cannot be written ({why}); free some space."]) from error
        return {"covered": covered}

    return _told(answer, name)


def _made(how: str, image: Path, mask: Path, name: str) -> Image.Image:
    if how == "transparency":
        with reading(image) as opened:
            picture = upright(opened)
            if not is_transparent(picture):
                raise DatasetError([f"Image {name!r} has no transparent part; paint its mask."])
            return picture.convert("RGBA").getchannel("A")
    size = image_size(image)
    if how == "filled":
        return Image.new("L", (size.width, size.height), 255)
    try:
        grey = _red(mask)
    except NotNowError:
        raise
    except DatasetError as error:
        raise DatasetError([f"The mask of {name!r} is not a readable {KINDS} file; save it as PNG, or paint it here."]) from error
    found = Size(grey.height, grey.width)
    if found != size:
        raise DatasetError([f"The mask of {name!r} is {found}, but its image is {size}; make them the same size."])
    return ImageChops.invert(grey) if how == "inverted" else grey


def _red(path: Path, content: bytes | None = None) -> Image.Image:
    """The red channel of a mask, which is what training takes."""
    with reading(path, content) as image:
        picture = upright(image)
        return (deep_as_rgb(picture) if is_deep(picture) else on_white(picture)).getchannel("R")


def _covered(grey: Image.Image) -> float:
    return sum(value * count for value, count in enumerate(grey.histogram())) / (255 * grey.width * grey.height)


def _told(answer: Callable[[], dict[str, object]], name: str) -> dict[str, object]:
    try:
        return answer()
    except DatasetError as error:
        return {"problems": error.problems, "for_now": isinstance(error, NotNowError)}
    except MemoryError:
        return {"problems": [f"The mask {name!r} needs more memory than is free; shrink or remove it."], "for_now": True}
