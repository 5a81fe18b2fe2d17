"""Every layer of a family that can get an adapter, with the shape of its weight: what can be told before a model is there."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from lib_lora.config.settled import Settled
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.families.family import Family, UNet
from lib_lora.model.adapter_types import Shape, tensor_shapes
from lib_lora.model.embeddings import BUNDLE, ONE, PAIR
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_names.text import layer_name
from lib_lora.model.layer_names.unet import Place, Side, unet_path
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.model.lora_layers import LoraFiles, LoraLayers

BYTES = {"float": 4, "fp16": 2, "bf16": 2}
# bytes that a file's header takes for each tensor beside its key: {"dtype":"F16","shape":[16,320],"data_offsets":[…]}
HEADER = 66

Layers = Iterator[tuple[str, Shape]]
Places = Iterator[tuple[Place, Shape]]


def layers_text(config: Settled, family: Family, files: LoraFiles | None = None) -> str:
    """How many layers of a model of full size are trained, and how large the file gets.

    What a file to go on with holds is in the new one, too, trained or not. "" where it, or ranks, cannot be read: that is told.
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
    if file is not None and held:  # what is not trained stays as it lies in the file
        size += sum(value.nbytes for value in file.raw.values()) / sum(map(_numbers, held.values())) * _numbers(kept)
    encoders = "encoders" if len(family.text_prefixes) > 1 else "encoder"
    parts = f"{counts['te']} of the text {encoders}, {counts['unet']} of the U-Net"
    others = len({key.partition(".")[0] for key in kept})
    more = f"; {others} others stay as {Path(path).stem} has them" if others else ""
    return f"{sum(counts.values())} layers of an {family.name}: {parts}{more}; a file of {size / 1e6:.1f} MB"


def _numbers(tensors: Mapping[str, Shape]) -> int:
    return sum(math.prod(sides) for sides in tensors.values())


def _held(path: str, file: LoraLayers, family: Family) -> dict[str, dict[str, Shape]]:
    """Layer -> key -> shape of its tensors, alpha among them, of the file to go on with; of a word in it nothing.

    Raises:
        LoraFileError: it cannot be read, or is of another model.
    """
    found: dict[str, dict[str, Shape]] = {}
    for key, value in file.state.items():
        name = key.partition(".")[0]
        if name != BUNDLE:
            found.setdefault(name, {f"{name}.alpha": ()})[key] = tuple(value.shape)
    if not {name for name in found if not is_further(name)} <= dict(layers_of(family)).keys():
        raise LoraFileError(f"{path!r} has layers that no {family.name} has.")
    return found


def _of_the_word(config: Settled, family: Family) -> dict[str, Shape]:
    """The vectors that are bundled in the file: for each text encoder as many as the trigger word has tokens."""
    count = config.embedding.embedding_vectors
    start, keys = f"{BUNDLE}.{config.text.trigger}.", ONE if len(family.text_encoders) == 1 else PAIR
    return {start + key: (count, encoder.width) for key, encoder in zip(keys, family.text_encoders)} if count else {}


@functools.cache
def layers_of(family: Family) -> tuple[tuple[str, Shape], ...]:
    """Names as in kohya's files of the family; text encoders first."""
    encoders = family.text_encoders
    text = [layer for encoder in encoders for layer in _text_encoder(encoder.prefix, encoder.layers, encoder.width)]
    return (*text, *_unet(family.unet))


def _text_encoder(prefix: str, layers: int, width: int) -> Layers:
    sides = {"self_attn_q_proj": 1, "self_attn_k_proj": 1, "self_attn_v_proj": 1, "self_attn_out_proj": 1, "mlp_fc1": 4}
    for number in range(layers):
        for name, factor in sides.items():
            yield layer_name(prefix, number, name), (factor * width, width)
        yield layer_name(prefix, number, "mlp_fc2"), (width, 4 * width)


def _unet(unet: UNet) -> Layers:
    for place, shape in (*_transformers(unet), *_convolutions(unet)):
        yield f"lora_unet_{unet_path(place, unet)}", shape


def _transformers(unet: UNet) -> Places:
    levels = len(unet.channels)
    blocks: list[tuple[Side, int, int, int]] = [
        ("in", level, i, unet.channels[level]) for level in range(levels) for i in range(2)
    ]
    blocks += [("middle", 0, 0, unet.channels[-1])]
    blocks += [("out", level, i, unet.channels[levels - 1 - level]) for level in range(levels) for i in range(3)]
    for side, level, number, width in blocks:
        depth = unet.depth(side, level)
        for inner, shape in _transformer(width, depth, unet) if depth else ():
            yield Place(side, level, number, "attention", inner), shape


def _transformer(width: int, depth: int, unet: UNet) -> Layers:
    around = (width, width) if unet.linear else (width, width, 1, 1)
    yield "proj_in", around
    yield "proj_out", around
    for number in range(depth):
        block = f"transformer_blocks_{number}_"
        for attention, context in (("attn1", width), ("attn2", unet.context)):
            for name, inner in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out_0", width)):
                yield f"{block}{attention}_{name}", (width, inner)
        yield block + "ff_net_0_proj", (8 * width, width)
        yield block + "ff_net_2", (width, 4 * width)


def _convolutions(unet: UNet) -> Places:
    channels, last = unet.channels, len(unet.channels) - 1
    for level, width in enumerate(channels):
        for i in range(2):
            yield from _residual("in", level, i, channels[max(level - 1, 0)] if i == 0 else width, width, unet)
        if level < last:
            yield Place("in", level, 0, "down", "conv"), (width, width, 3, 3)
    for i in range(2):
        yield from _residual("middle", 0, i, channels[last], channels[last], unet)
    for level, width in enumerate(reversed(channels)):
        for i, inner in enumerate(_joined(level, channels)):
            yield from _residual("out", level, i, inner, width, unet)
        if level < last:
            yield Place("out", level, 0, "up", "conv"), (width, width, 3, 3)


def _joined(level: int, channels: tuple[int, ...]) -> list[int]:
    """What the three residual blocks of a level up read: what comes over from the way down is joined."""
    last = len(channels) - 1
    width, before, after = (channels[min(max(last - level + step, 0), last)] for step in (0, 1, -1))
    return [(before if i == 0 else width) + (after if i == 2 else width) for i in range(3)]


def _residual(side: Side, level: int, number: int, inner: int, width: int, unet: UNet) -> Places:
    shapes = {"conv1": (width, inner, 3, 3), "time_emb_proj": (width, 4 * unet.channels[0]), "conv2": (width, width, 3, 3)}
    if inner != width:
        shapes["conv_shortcut"] = (width, inner, 1, 1)
    for name, shape in shapes.items():
        yield Place(side, level, number, "residual", name), shape
