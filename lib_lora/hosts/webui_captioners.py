"""BLIP and DeepBooru of the webui, through its own code (`modules.interrogate`, `modules.deepbooru`), under its queue lock.

`InterrogateModels.interrogate` is not used: it adds words of CLIP, and begins and ends `shared.state`, which may be another
task's. `DeepDanbooru.tag` sorts and escapes tags. Nothing is downloaded: the webui's loaders fetch missing files, so their files
are looked for first. The lock is held from image to image until somebody waits for it.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PIL import Image

from lib_lora.datasets.captioners.captioner import Tags

if TYPE_CHECKING:
    from lib_lora.hosts.webui_queue import Place

SECONDS = 300.0  # of an image with the model on the CPU
END_S = 20.0  # that an image still has when the captioner ends
SIDE = 512  # pixels: the size that DeepBooru was trained on
BLIP_FILE, DEEPBOORU_FILE = "model_base_caption_capfilt_large.pth", "model-resnet_custom_v3.pt"
VOCABULARY = "bert-base-uncased"  # BLIP's


class _WebuiCaptioner:
    """A `Captioner` that computes in turns with the webui's other tasks."""

    name = ""
    seconds = SECONDS

    def __init__(self) -> None:
        self._at_work = threading.Lock()
        self._guard = threading.Lock()  # of the three below
        self._place: Place | None = None
        self._turn: ExitStack | None = None
        self._is_over = False
        self._is_loaded = False

    def needs(self) -> str:
        """See `Captioner`."""
        raise NotImplementedError

    def _load(self) -> None:
        """Put the model on its device; it may have been moved away since the last image."""
        raise NotImplementedError

    def _unload(self) -> None:
        """Move the model away, as the webui's settings say."""
        raise NotImplementedError

    def _caption(self, image: Image.Image) -> str | Tags:
        raise NotImplementedError

    def __enter__(self) -> _WebuiCaptioner:
        return self

    def wait_for_turn(self) -> None:
        """Take the queue lock if we do not have it, or if others wait for it: after them."""
        from lib_lora.hosts.webui_queue import Place

        with self._guard:
            first = self._place is None
            place = self._place = self._place or Place()
            kept = self._turn is not None and not place.wanted
        if kept:
            return
        self._give_back()
        turn = ExitStack()
        (place.take if first else place.take_again)(turn)
        with self._guard:
            if not self._is_over:
                self._turn = turn
                return
        turn.close()  # stopped while we waited

    def caption(self, image: Image.Image) -> str | Tags:
        """See `Captioner`."""
        from modules import devices, lowvram

        with self._at_work:
            if not self._is_loaded:
                lowvram.send_everything_to_cpu()
                devices.torch_gc()
            self._is_loaded = True
            self._load()
            return self._caption(image)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._guard:
            self._is_over = True
        idle = self._at_work.acquire(timeout=END_S)
        try:
            self._give_back()
        finally:
            if idle:
                self._at_work.release()

    def _give_back(self) -> None:
        """Move the model away and release the lock, if we have it."""
        with self._guard:
            turn, self._turn = self._turn, None
        if turn is None:
            return
        with turn:
            if self._is_loaded:
                self._is_loaded = False
                self._unload()


class Blip(_WebuiCaptioner):
    """A sentence on the image by BLIP, with the webui's settings of "Interrogate CLIP"."""

    name = "BLIP"

    def needs(self) -> str:
        """See `Captioner`."""
        missing = _missing("BLIP", "BLIP", BLIP_FILE, ".pth")
        if missing or _has_vocabulary():
            return missing
        return (
            f"BLIP needs the vocabulary of {VOCABULARY} (Hugging Face) in this computer's cache, which does not have it; press "
            "Interrogate CLIP in img2img once while the webui has the internet."
        )

    def _load(self) -> None:
        from modules import devices, shared, torch_utils

        models = shared.interrogator
        if models.blip_model is None:
            model = models.load_blip_model()
            models.blip_model = model if shared.cmd_opts.no_half or models.running_on_cpu else model.half()
        models.blip_model = models.blip_model.to(devices.device_interrogate)
        models.dtype = torch_utils.get_param(models.blip_model).dtype

    def _unload(self) -> None:
        from modules import devices, shared

        shared.interrogator.send_blip_to_ram()
        devices.torch_gc()

    def _caption(self, image: Image.Image) -> str:
        from modules import shared

        return shared.interrogator.generate_caption(image)


class DeepBooru(_WebuiCaptioner):
    """Danbooru's tags by DeepBooru, with their probabilities."""

    name = "DeepBooru"

    def needs(self) -> str:
        """See `Captioner`."""
        return _missing("DeepBooru", "torch_deepdanbooru", DEEPBOORU_FILE, ".pt")

    def _load(self) -> None:
        from modules import deepbooru

        deepbooru.model.start()

    def _unload(self) -> None:
        from modules import deepbooru

        if deepbooru.model.model is not None:
            deepbooru.model.stop()

    def _caption(self, image: Image.Image) -> Tags:
        """All tags but ratings (`DeepDanbooru.tag_multi`, before its threshold, sorting and escaping)."""
        import numpy as np
        import torch
        from modules import deepbooru, devices, images

        picture = images.resize_image(2, image, SIDE, SIDE, upscaler_name="None")
        pixels = np.expand_dims(np.array(picture, dtype=np.float32), 0) / 255
        network: Any = deepbooru.model.model
        with torch.no_grad(), devices.autocast():
            given = torch.from_numpy(pixels).to(devices.device, devices.dtype)
            found = network(given)[0].detach().float().cpu().numpy()
        return [(tag, float(share)) for tag, share in zip(network.tags, found) if not tag.startswith("rating:")]


def _missing(name: str, folder: str, file: str, suffix: str) -> str:
    """A sentence if the webui's loader would download a captioner's file; found as it finds it."""
    from modules import modelloader, paths

    place = str(Path(paths.models_path) / folder)
    if modelloader.load_models(model_path=place, ext_filter=[suffix]):
        return ""
    return f"{name} needs the file {file}, which is not there; put it into {place!r}, or use another captioner."


def _has_vocabulary() -> bool:
    """Whether transformers has BLIP's vocabulary without a download."""
    from huggingface_hub import try_to_load_from_cache
    from transformers import utils

    cache = getattr(utils, "TRANSFORMERS_CACHE", None)  # newer versions have none of their own
    return isinstance(try_to_load_from_cache(VOCABULARY, "vocab.txt", cache_dir=cache), str)
