"""Other images -> PNG or JPEG, and parts of images -> PNG. Runs in the decoder process (`decoder_process.Reader.written`).

HEIC and AVIF are lossy and become JPEG of quality 95 with full colour resolution; what is transparent, deep or lossless becomes
PNG. The rotation is applied to the pixels and the colour profile is kept; other metadata, such as place and camera, are not.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from lib_lora.data.edits import size_in
from lib_lora.data.image_files import MAX_BYTES, MAX_PIXELS, NotNowError, file_content, has_alpha, is_deep, reading, upright
from lib_lora.data.sizes import Crop, Size
from lib_lora.errors import DatasetError

PNG, JPEG = ".png", ".jpg"
QUALITY = 95
LOSSY = {"HEIF", "AVIF"}
# plugins of other packages, imported only for a file that needs them
_PLUGINS = {"HEIF": ("pillow_heif", "register_heif_opener"), "AVIF": ("pillow_avif", "")}
_REMEDY = {
    "HEIF": "HEIC photos need the package pillow-heif (pip install pillow-heif==0.16.0 in the webui's Python); install it, or "
    "save them as JPEG",
    "AVIF": "AVIF images need the package pillow-avif-plugin; install it in the webui's Python, or save them as PNG or JPEG",
}
_AS_IT_IS = {"1", "L", "LA", "P", "RGB", "RGBA"}  # modes that a PNG holds


class UnusedError(DatasetError):
    """A file that is not used. `why`: a clause that also fits several names."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__([f"{name!r}: {why}."])
        self.name, self.why = name, why


def written(request: Mapping[str, Any]) -> dict[str, object]:
    """The answer to a request: `{"suffix": …}`, `{"why": …}`, or `{"problems": […], "for_now": …}`.

    `source`, `target`: paths. `name`: of the source, for messages. `format`: HEIF, AVIF, GIF or TIFF, None for an image that
    training reads. `crop`: edges in the upright image, None for all.
    """
    source, target, name = Path(request["source"]), Path(request["target"]), str(request["name"])
    try:
        if request["format"] is None:
            return {"suffix": _cropped(source, target, name, Crop(*request["crop"]))}
        return {"suffix": _converted(source, target, name, str(request["format"]))}
    except UnusedError as error:
        return {"why": error.why}
    except DatasetError as error:
        return {"problems": error.problems, "for_now": isinstance(error, NotNowError)}
    except MemoryError:
        return {"problems": [f"Image {name!r} needs more memory than is free; shrink or remove it."], "for_now": True}


def _cropped(source: Path, target: Path, name: str, crop: Crop) -> str:
    with reading(source) as image:
        whole = upright(image)
        if size_in(crop, Size(whole.height, whole.width)) is None:
            raise UnusedError(name, "smaller than the part chosen of it; choose the part again")
        part = whole.crop(crop)
        profile = None if image.mode == "CMYK" else image.info.get("icc_profile")
    _save(part, target, name, PNG, profile)
    return PNG


def _converted(source: Path, target: Path, name: str, kind: str) -> str:
    with _foreign(file_content(source), name, kind) as image:
        image.load()  # turns a TIFF, whose EXIF of Pillow 9.5 still says that it is not
        turned = image.copy() if kind == "TIFF" else ImageOps.exif_transpose(image)
        assert turned is not None  # None only if done in place
        profile = None if image.mode == "CMYK" else image.info.get("icc_profile")
    suffix = JPEG if kind in LOSSY and not has_alpha(turned) and not is_deep(turned) else PNG
    _save(turned, target, name, suffix, profile)
    return suffix


@contextmanager
def _foreign(content: bytes, name: str, kind: str) -> Iterator[Image.Image]:
    """The opened image, if it is one picture of legal size; Pillow's errors in the block become an UnusedError."""
    _load(kind, name)
    try:
        with Image.open(io.BytesIO(content), formats=(kind,)) as image:
            if kind != "HEIF" and getattr(image, "is_animated", False):
                raise UnusedError(name, "more than one picture in a file; save the one you want as PNG")
            if image.width * image.height > MAX_PIXELS:
                raise UnusedError(name, f"more than {MAX_PIXELS // 10**6} million pixels; shrink it")
            if image.mode == "F" or (image.mode == "I" and kind == "TIFF"):
                raise UnusedError(name, "32 bits per pixel; save it as PNG with 8 or 16")
            yield image
    except (DatasetError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise UnusedError(name, f"more than {MAX_PIXELS // 10**6} million pixels; shrink it") from error
    except Exception as error:  # noqa: BLE001 - plugins and crafted files raise errors of any type
        raise UnusedError(name, "damaged or broken off; copy or save it again") from error


def _load(kind: str, name: str) -> None:
    """Make Pillow read a format, with another package if necessary."""
    Image.init()
    if kind not in Image.OPEN and kind in _PLUGINS:
        module, register = _PLUGINS[kind]
        try:
            plugin = importlib.import_module(module)
        except ImportError as error:
            raise UnusedError(name, _REMEDY[kind]) from error
        if register:
            getattr(plugin, register)()
    if kind not in Image.OPEN:
        raise UnusedError(name, _REMEDY.get(kind, "cannot be read; save it as PNG or JPEG"))


def _save(picture: Image.Image, target: Path, name: str, suffix: str, profile: bytes | None) -> None:
    if suffix == JPEG:
        picture = picture.convert("RGB")
    elif picture.mode not in _AS_IT_IS and not is_deep(picture):
        picture = picture.convert("RGBA" if has_alpha(picture) else "RGB")
    try:
        if suffix == JPEG:
            picture.save(target, "JPEG", quality=QUALITY, subsampling=0, icc_profile=profile, exif=b"")
        else:
            picture.save(target, "PNG", icc_profile=profile, exif=b"")
        length = target.stat().st_size
    except OSError as error:
        raise NotNowError([f"Image {name!r} cannot be written ({error.strerror or error}); free some space."]) from error
    except ValueError as error:
        raise UnusedError(name, "cannot be saved as PNG or JPEG; save it so yourself") from error
    if length > MAX_BYTES:
        raise UnusedError(name, f"larger than {MAX_BYTES // 2**20} MB as {suffix[1:].upper()}; shrink it")
