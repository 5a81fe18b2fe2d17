"""The webui's own focal point and face detection, for crops. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets.crops import Autocrop, around
from lib_lora.errors import DatasetError

LOOKED_AT = 512  # shortest side of the image that is searched, as in the webui's own crops of 512 pixels
MOST_RATIO = 8  # of an image that is searched: the webui's search moves on by 4 pixels along the long side


class WebuiAutocrop:
    """`Autocrop` with the webui's `modules.textual_inversion.autocrop`.

    Args:
        module: that module.
        model: the file of the face model; None to do without.
        faces: search for faces alone.
    """

    def __init__(self, module: Any, model: Path | None, *, faces: bool) -> None:
        self._module, self._model, self._faces = module, model, faces

    def __call__(self, image: Image.Image, size: Size) -> Crop | None:
        scale = LOOKED_AT / min(image.size)
        small = image.resize((round(image.width * scale), round(image.height * scale)))
        if max(small.size) > MOST_RATIO * LOOKED_AT:
            raise DatasetError(["It is too long and narrow to be searched; move its frame by hand."])
        whole = Size(small.height, small.width)
        part = around(0, 0, whole, size)
        settings = self._module.Settings(
            crop_width=part.right - part.left,
            crop_height=part.bottom - part.top,
            corner_points_weight=0.0 if self._faces else 0.5,
            entropy_points_weight=0.0 if self._faces else 0.5,
            face_points_weight=0.5 if self._model else 0.0,
            dnn_model_path=None if self._model is None else str(self._model),
        )
        try:
            if self._faces and not self._module.image_face_points(small, settings):
                return None
            focus = self._module.focal_point(small, settings)
        except Exception as error:  # noqa: BLE001 - the webui's code and OpenCV raise errors of any type
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise DatasetError([f"The webui's own search fails ({why}); move its frame by hand."]) from error
        return around(focus.x / scale, focus.y / scale, Size(image.height, image.width), size)


def focal() -> Autocrop:
    """Finds the focal point: corners, detail, and faces if their model is there.

    Raises:
        DatasetError: this webui has no such code.
    """
    module = _module()
    return WebuiAutocrop(module, _model(module), faces=False)


def face() -> Autocrop:
    """Finds faces.

    Raises:
        DatasetError: this webui has no such code, or the model is not there; the sentence says which file is needed.
    """
    module = _module()
    model = _model(module)
    if model is None:
        needed = Path(str(getattr(module, "model_file_path", "face_detection_yunet_2023mar.onnx")))
        told = f"needs OpenCV's face model; put {needed.name!r} from its model zoo into {str(needed.parent)!r}"
        raise DatasetError([f"Crop: face {told}, or choose focal or square."])
    return WebuiAutocrop(module, model, faces=True)


def _module() -> Any:
    try:
        from modules.textual_inversion import autocrop  # its own imports are large
    except ImportError as error:
        raise DatasetError([f"Crop: this webui cannot find what matters in images ({error}); choose square."]) from error
    return autocrop


def _model(module: Any) -> Path | None:
    """The file of the face model, if it is there and not empty."""
    path = Path(str(getattr(module, "model_file_path", "")))
    try:
        return path if path.is_file() and path.stat().st_size else None
    except OSError:
        return None
