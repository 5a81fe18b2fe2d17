"""How many layers a run trains and how large its file gets, for the report before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from lib_lora.config.settled import Settled
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.families.family import Family
from lib_lora.model.adapter_types import Shape, tensor_shapes
from lib_lora.model.embeddings import BUNDLE, ONE, PAIR
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.layer_shapes import layers_of
from lib_lora.model.lora_layers import LoraFiles, LoraLayers

BYTES = {"float": 4, "fp16": 2, "bf16": 2}


# bytes that a file's header takes for each tensor besides its key: {"dtype":"F16","shape":[16,320],"data_offsets":[…]}
HEADER = 66


def layers_text(config: Settled, family: Family, files: LoraFiles | None = None) -> str:
    """How many layers of a full-size model are trained and how large the file gets, in words.

    The new file includes all layers of the file to continue from, trained or not. "" if that file or the ranks cannot be read,
    which is reported elsewhere.
    """
    counts, tensors, kept = {"te": 0, "unet": 0}, _of_the_word(config, family), dict[str, Shape]()
    rates = {"te": config.optimizer.text_encoder_lr, "unet": config.optimizer.unet_lr}
    try:
        file = (files or LoraFiles()).layers(path, family) if (path := config.adapter.network_weights) else None
        held = _held(path, file, family) if file else {}
        for name, shape in layers_of(family):
            part, rank = "unet" if name.startswith("lora_unet_") else "te", rank_and_alpha(name, config.adapter)[0]
            trained = rates[part] > 0 and rank > 0
            if name in held:
                (tensors if trained else kept).update(held[name])
            elif trained and not config.adapter.dim_from_weights:
                made = {**tensor_shapes(shape, rank, config.adapter, name), "alpha": ()}
                tensors.update({f"{name}.{end}": sides for end, sides in made.items()})
            else:
                continue
            counts[part] += trained
        for name in filter(is_further, held):
            kept.update(held[name])
    except (ConfigError, LoraFileError):
        return ""
    size: float = sum(len(key) + HEADER for key in (*tensors, *kept))
    size += BYTES[config.precision.save_precision] * _numbers(tensors)
    if file is not None and held:  # what is not trained stays as it is in the file
        size += sum(value.nbytes for value in file.raw.values()) / sum(map(_numbers, held.values())) * _numbers(kept)
    encoders = "encoders" if len(family.text_prefixes) > 1 else "encoder"
    parts = f"{counts['te']} of the text {encoders}, {counts['unet']} of the U-Net"
    others = len({key.partition(".")[0] for key in kept})
    more = f"; {others} others stay as in {Path(path).stem}" if others else ""
    return f"{sum(counts.values())} layers of an {family.name}: {parts}{more}; a file of {size / 1e6:.1f} MB"


def _numbers(tensors: Mapping[str, Shape]) -> int:
    return sum(math.prod(sides) for sides in tensors.values())


def _held(path: str, file: LoraLayers, family: Family) -> dict[str, dict[str, Shape]]:
    """Layer -> key -> shape of its tensors, including alpha, in the file to continue from; without its embeddings.

    Raises:
        LoraFileError: the file is of another model.
    """
    found: dict[str, dict[str, Shape]] = {}
    for key, value in file.state.items():
        name = key.partition(".")[0]
        if name != BUNDLE:
            found.setdefault(name, {f"{name}.alpha": ()})[key] = tuple(value.shape)
    if not {name for name in found if not is_further(name)} <= dict(layers_of(family)).keys():
        raise LoraFileError(f"{path!r} has layers that do not exist in {family.name}.")
    return found


def _of_the_word(config: Settled, family: Family) -> dict[str, Shape]:
    """Shapes of the vectors bundled in the file: for each text encoder as many vectors as the trigger word has tokens."""
    count = config.embedding.embedding_vectors
    start, keys = f"{BUNDLE}.{config.text.trigger}.", ONE if len(family.text_encoders) == 1 else PAIR
    return {start + key: (count, encoder.width) for key, encoder in zip(keys, family.text_encoders)} if count else {}
