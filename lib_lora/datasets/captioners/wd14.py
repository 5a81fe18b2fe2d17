"""WD taggers, version 3 (SmilingWolf's wd-*-tagger-v3), with onnxruntime where it is installed.

The model gets the image on a white square, BGR from 0 to 255, and gives a probability for every line of `selected_tags.csv`.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora.datasets.captioners.captioner import LONGEST_TAG, MOST_TAGS, CaptionerError, Tags
from lib_lora.errors import DatasetError
from lib_lora.paths import pasted, path_problem

SECONDS = 120.0
USUAL_SIDE, LEAST_SIDE, MOST_SIDE = 448, 16, 2048  # pixels
MAX_LIST, MAX_MODEL = 16 * 2**20, 8 * 2**30  # bytes
MODEL, LIST = "model.onnx", "selected_tags.csv"
_SOURCE = "of a WD tagger v3, such as SmilingWolf/wd-vit-tagger-v3 on Hugging Face"
_GENERAL, _CHARACTER, _RATING = "0", "4", "9"  # categories of the list


class Wd14:
    """A `Captioner` with the model and the list of tags of a WD tagger, by their paths.

    Args:
        model: the ONNX file, or the folder that holds it as MODEL.
        tags: the list; None for LIST beside the model.
        characters: the least probability of a character's name, which is more easily wrong than other tags.
    """

    name = "WD14"
    seconds = SECONDS

    def __init__(self, model: str, tags: str | None = None, characters: float = 0.85) -> None:
        self._named = (pasted(model), None if tags is None else pasted(tags))
        given = Path(pasted(model))
        self._model = given if given.suffix.lower() == ".onnx" else given / MODEL
        self._list = self._model.with_name(LIST) if tags is None else Path(pasted(tags))
        self._characters = characters
        self._session: Any = None
        self._tags: list[tuple[str, str]] = []

    def needs(self) -> str:
        """See `Captioner`."""
        for text in filter(None, self._named):
            problem = path_problem(text)
            if problem:
                return f"WD14: the path {text[:80]!r} {problem}"
        if importlib.util.find_spec("onnxruntime") is None:
            return "WD14 needs the package onnxruntime, which is not installed; install it into the Python of the webui."
        for path, limit in ((self._model, MAX_MODEL), (self._list, MAX_LIST)):
            try:
                size = path.stat().st_size if path.is_file() else None
            except (OSError, ValueError):  # no permission, or no path
                size = None
            if size is None:
                return f"WD14 needs the file {str(path)!r}, which is not there; put {path.name} {_SOURCE}, there."
            if size > limit:
                return f"The file {str(path)!r} is too large for a WD tagger; use {path.name} {_SOURCE}."
        return ""

    def __enter__(self) -> Wd14:
        """Load the model.

        Raises:
            DatasetError: the files are no WD tagger.
        """
        self._tags = read_tags(self._list)
        try:
            runtime: Any = importlib.import_module("onnxruntime")
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # errors
            self._session = runtime.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - errors of onnxruntime have types of their own; its DLLs may be missing
            raise DatasetError(
                [f"The model {self._model.name!r} cannot be loaded ({_short(error)}); use one {_SOURCE}."]
            ) from error
        self._require_tagger()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session = None

    def wait_for_turn(self) -> None:
        pass

    def caption(self, image: Image.Image) -> Tags:
        """All tags of an image with their probabilities, without ratings and without uncertain characters."""
        entry = self._session.get_inputs()[0]
        output = self._session.get_outputs()[0].name
        said = self._session.run([output], {entry.name: squared(image, _side(entry.shape))})[0]
        found: NDArray[np.float64] = np.asarray(said, dtype=np.float64).reshape(-1)
        if len(found) != len(self._tags):
            raise CaptionerError(
                f"the model gives {len(found)} numbers and its list has {len(self._tags)} tags; choose the list of this model."
            )
        if not np.isfinite(found).all() or found.min() < 0 or found.max() > 1:
            raise CaptionerError(f"the model gives numbers that are no probabilities; use one {_SOURCE}.")
        least = {_GENERAL: 0.0, _CHARACTER: self._characters}
        return [(tag, float(share)) for (tag, kind), share in zip(self._tags, found) if share >= least.get(kind, 2.0)]

    def _require_tagger(self) -> None:
        """Check the shape of the model's input, `[B, side, side, 3]`, before an image is given to it."""
        shape = self._session.get_inputs()[0].shape
        sides = {side for side in shape[1:3] if isinstance(side, int)} if len(shape) == 4 else {0}
        if len(self._session.get_inputs()) != 1 or len(shape) != 4 or shape[3] != 3 or len(sides) > 1:
            raise DatasetError([f"The model {self._model.name!r} is no WD tagger; use one {_SOURCE}."])
        if not LEAST_SIDE <= _side(shape) <= MOST_SIDE:
            raise DatasetError(
                [f"The model {self._model.name!r} wants images of {_side(shape)} pixels, not of {LEAST_SIDE} to {MOST_SIDE}."]
            )


def squared(image: Image.Image, side: int) -> NDArray[np.float32]:
    """An RGB image in the middle of a white square, scaled; BGR, 0 to 255. `[1, side, side, 3]`."""
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square, dtype=np.float32)[None, :, :, ::-1])


def read_tags(path: Path) -> list[tuple[str, str]]:
    """The tags and their categories in the untrusted list `path`, in the order of the model's numbers.

    Raises:
        DatasetError: the file is no list of tags.
    """
    try:
        if path.stat().st_size > MAX_LIST:
            raise ValueError("it is too large")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            found: list[tuple[str, str]] = []
            for row in rows:
                name, kind = row["name"], row["category"]
                if not name or len(name) > LONGEST_TAG or len(found) >= MOST_TAGS:
                    raise ValueError("a tag is empty or too long, or there are too many")
                found.append((name, kind))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DatasetError([f"The list {path.name!r} cannot be used ({_short(error)}); use {LIST} {_SOURCE}."]) from error
    return found


def _side(shape: list[Any]) -> int:
    """The side of the model's images; models that take any size were trained with USUAL_SIDE."""
    return next((side for side in shape[1:3] if isinstance(side, int)), USUAL_SIDE)


def _short(error: Exception) -> str:
    said = f"there is no column {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    return " ".join(str(said).split())[:120] or type(error).__name__
