"""What the webui does with images for us: BLIP, DeepBooru, its focal point and faces; imported when they are used."""

from __future__ import annotations

from pathlib import Path

from lib_lora.datasets.captioner_fields import SENTENCE, TAGS, THRESHOLD, with_default
from lib_lora.datasets.captioner_offers import Offer, plain_offers
from lib_lora.datasets.crops import Autocrop
from lib_lora.hosts import webui_autocrop
from lib_lora.hosts.webui_captioners import Blip, DeepBooru

WD14_FOLDER = "WD14"  # below the webui's folder of models
DEEPBOORU_THRESHOLD = 0.5  # as the webui's own


class WebuiImageTools:
    """`ImageTools` of the webui. `may_choose`: whether the page may name files of this computer."""

    def __init__(self, *, may_choose: bool) -> None:
        self._may_choose = may_choose

    def captioners(self) -> list[Offer]:
        """See `ImageTools`."""
        from modules import paths

        tags = tuple(with_default(field, DEEPBOORU_THRESHOLD) if field is THRESHOLD else field for field in TAGS)
        return [
            Offer("blip", Blip.name, lambda _: Blip(), SENTENCE),
            Offer("deepbooru", DeepBooru.name, lambda _: DeepBooru(), tags),
            *plain_offers(Path(paths.models_path) / WD14_FOLDER, may_choose=self._may_choose),
        ]

    def autocrop(self, mode: str) -> Autocrop | None:
        """See `ImageTools`."""
        return webui_autocrop.face() if mode == "face" else webui_autocrop.focal()
