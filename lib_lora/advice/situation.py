"""What settings are derived from: three answers of the user, and facts about images, model and device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from lib_lora.config import data_rules
from lib_lora.config.groups import TrainConfig
from lib_lora.data.dataset import Dataset, Sample
from lib_lora.data.sizes import Size
from lib_lora.families.family import Family
from lib_lora.families.sd1 import SD1
from lib_lora.plan import Length, planned_length

Kind = Literal["person", "style", "object"]
Captions = Literal["tags", "sentences", "none"]
FAST, NORMAL, THOROUGH = 1, 3, 5
_SIZE_RULES = (
    data_rules.resolution_multiple,
    data_rules.height_multiple,
    data_rules.bucket_step_multiple,
    data_rules.bucket_range,
    data_rules.smallest_side_has_a_step,
)
_TAG_WORDS = 3.5  # words between two commas: tags have fewer, sentences more


class Photo(NamedTuple):
    """An image. `size`: of the part that is used. `repeats`: those that its folder gives; None if it gives none."""

    size: Size
    repeats: int | None = None
    folder: str = ""


@dataclass(frozen=True)
class Situation:
    """The answers and facts.

    `kind`: a person or character, a style, or an object. `thoroughness`: from FAST to THOROUGH. `name`: of the LoRA.
    `photos`, `regularisation`: the images. `captions`: what their captions are. `longest_caption`: in tokens; 0 if unknown.
    `free_gb`: GiB that the run may use, with those that the loaded model takes already; None if unknown.
    `device`: cuda, cpu or another type of torch's. `eight_bit`: whether the optimizers of bitsandbytes work.
    `predicts_v`: whether the model does.
    """

    kind: Kind = "person"
    thoroughness: int = NORMAL
    name: str = ""
    photos: tuple[Photo, ...] = ()
    regularisation: tuple[Photo, ...] = ()
    captions: Captions = "none"
    longest_caption: int = 0
    family: Family = SD1
    free_gb: float | None = None
    device: str = "cuda"
    eight_bit: bool = False
    predicts_v: bool = False

    def length(self, config: TrainConfig) -> Length | None:
        """The length of a run with these images; None if there are none, or sizes of buckets are illegal.

        Raises:
            DatasetError: an image is too small or too long for every bucket.
        """
        if not self.photos or any(rule(config) for rule in _SIZE_RULES):
            return None
        samples = (*self._samples(config, self.photos, is_reg=False), *self._samples(config, self.regularisation, is_reg=True))
        return planned_length(config, Dataset(samples, (), (), ()))

    @staticmethod
    def _samples(config: TrainConfig, photos: Sequence[Photo], *, is_reg: bool) -> list[Sample]:
        """Samples of these images; regularisation images of a folder without a number are shown once."""
        usual = 1 if is_reg else config.data.repeats
        return [
            Sample(Path(photo.folder or "images") / str(number), "", photo.repeats or usual, photo.size, True, is_reg)
            for number, photo in enumerate(photos)
        ]


def photos_of(dataset: Dataset, repeats: int) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """The images and the regularisation images of a dataset that was scanned with the option `repeats`."""
    given = {folder.path: folder.concept is not None or folder.repeats != repeats for folder in dataset.folders}

    def photo(sample: Sample) -> Photo:
        own = sample.is_reg or given.get(sample.path.parent, False)
        return Photo(sample.size, sample.repeats if own else None, str(sample.path.parent))

    learned = tuple(photo(sample) for sample in dataset.samples if not sample.is_reg)
    return learned, tuple(photo(sample) for sample in dataset.samples if sample.is_reg)


def captions_of(texts: Sequence[str]) -> Captions:
    """What captions, of which some may be empty, are. Tags are short and separated by commas."""
    written = [text for text in texts if text.strip()]
    if not written:
        return "none"
    parts = [part.split() for text in written for part in text.split(",") if part.strip()]
    several = sum("," in text for text in written) * 2 >= len(written)
    return "tags" if several and sum(map(len, parts)) <= _TAG_WORDS * len(parts) else "sentences"
