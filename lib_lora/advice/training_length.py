"""How long to train, and which versions of the LoRA a run leaves to choose from."""

from __future__ import annotations

from lib_lora.advice.draft import Draft
from lib_lora.advice.situation import Situation
from lib_lora.errors import DatasetError

VERSIONS, FEWEST_VERSIONS = 10, 5  # epochs, each saved and sampled; below the second, versions are saved by steps
MOST_REPEATS, MOST_EPOCHS = 10000, 1000
_THOROUGHNESS = (0.4, 0.65, 1.0, 1.5, 2.2)  # times the usual number of images seen
_OF_KIND = {"person": 1.0, "style": 1.0, "object": 0.8}  # things are learned faster than faces
_PER_IMAGE, _PER_IMAGE_OF_MANY, _MOST_PER_IMAGE = 150, 100, 250
_LEAST, _MOST, _MOST_OF_MANY = 1500, 4000, 12000
_FEW = 40  # images
_FEWEST_SEEN = 150
_ASSUMED = 10  # images, as long as there are none


def images_seen(situation: Situation) -> int:
    """How many images a run should see in all, each counted as often as it is seen."""
    count = len(situation.photos) or _ASSUMED
    usual = min(max(_PER_IMAGE * count, _LEAST), _MOST, _MOST_PER_IMAGE * count)
    if count > _FEW:
        usual = min(max(_PER_IMAGE_OF_MANY * count, _MOST), _MOST_OF_MANY)
    level = min(max(situation.thoroughness, 1), len(_THOROUGHNESS))
    return max(round(usual * _THOROUGHNESS[level - 1] * _OF_KIND[situation.kind]), _FEWEST_SEEN)


def choose_length(draft: Draft, situation: Situation) -> None:
    """Epochs and repeats. Steps that are pinned are divided into about ten epochs."""
    seen = images_seen(situation)
    if draft.config.run.steps:
        shown = draft.config.run.steps * draft.config.data.batch_size * draft.config.optimizer.gradient_accumulation_steps
        repeats = round(shown / VERSIONS / (len(situation.photos) or _ASSUMED))
        reason = "Makes about ten epochs of the steps, which give ten versions to choose from."
        draft.choose("repeats", min(max(repeats, 1), MOST_REPEATS), reason)
        return
    free, fixed = _shown_once(situation)
    if fixed or draft.is_pinned("repeats"):
        per_epoch = fixed + free * draft.config.data.repeats
        epochs = min(max(round(seen / per_epoch), 1), MOST_EPOCHS)
        draft.choose("epochs", epochs, f"An epoch shows {per_epoch} images, and about {seen} should be seen in all.")
    elif seen >= VERSIONS * free:
        draft.choose("epochs", VERSIONS, "Ten epochs give ten versions to choose from.")
    else:
        epochs = max(round(seen / free), 1)
        draft.choose("epochs", epochs, f"There are many images, so {epochs} epochs are enough.")
    if free:
        epochs = draft.config.run.epochs
        repeats = min(max(round((seen / epochs - fixed) / free), 1), MOST_REPEATS)
        draft.choose("repeats", repeats, f"Every image is seen {repeats * epochs} times in all.")


def choose_files(draft: Draft, situation: Situation) -> None:
    """Saved and sampled versions: about ten of a run."""
    run, steps = draft.config.run, 0
    if not run.steps and run.epochs < FEWEST_VERSIONS:
        steps = _steps(draft, situation) // VERSIONS
    every = 1 if run.steps else -(-run.epochs // VERSIONS)
    if steps:
        draft.choose("save_every_n_steps", steps, "Epochs are long, so about ten versions are saved within them.")
        draft.choose("sample_every_n_steps", steps, "A picture of every saved version shows what it has learned.")
    else:
        draft.choose("save_every_n_epochs", every, "Saves earlier versions, so that you can pick one that is not overtrained.")
        draft.choose("sample_every_n_epochs", every, "A picture of every saved version shows what it has learned.")
    draft.choose("sample_at_first", True, "A picture from before the first step shows what the model knew already.")


def _steps(draft: Draft, situation: Situation) -> int:
    """The steps of the run; 0 if they are not known."""
    try:
        length = situation.length(draft.config)
    except DatasetError:
        return 0
    return length.steps if length else 0


def _shown_once(situation: Situation) -> tuple[int, int]:
    """The number of images without repeats of their folder, and how often an epoch shows the others."""
    free = sum(photo.repeats is None for photo in situation.photos)
    fixed = sum(photo.repeats or 0 for photo in situation.photos)
    return (free or (_ASSUMED if not situation.photos else 0)), fixed
