"""Every layer of a family that can get an adapter, with the shape of its weight: what can be told before a model is there."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from lib_lora.config.settled import Settled
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.model.blocks import rank_and_alpha
from lib_lora.model.family import SD1, SD2, SDXL, Family
from lib_lora.model.kinds import Shape, tensor_shapes
from lib_lora.model.layer_names.further import is_further
from lib_lora.model.layer_names.text import layer_name
from lib_lora.model.words import BUNDLE, ONE, PAIR
from lib_lora.output.lora_layers import LoraFiles, LoraLayers

CHANNELS = (320, 640, 1280, 1280)
TIME = 1280
CONTEXT = {SD1.card: 768, SD2.card: 1024, SDXL.card: 2048}
TEXT = {SD1.card: ((12, 768),), SD2.card: ((23, 1024),), SDXL.card: ((12, 768), (32, 1280))}  # layers and width of the encoders
XL_DEPTHS = (0, 2, 10)  # transformers in a level of SDXL's U-Net
BYTES = {"float": 4, "fp16": 2, "bf16": 2}
# bytes that a file's header takes for each tensor beside its key: {"dtype":"F16","shape":[16,320],"data_offsets":[…]}
HEADER = 66

Layers = Iterator[tuple[str, Shape]]


def layers_text(config: Settled, family: Family, files: LoraFiles | None = None) -> str:
    """How many layers of a model of full size are trained, and how large the file gets.

    What a file to go on with holds is in the new one, too, trained or not. "" where it, or ranks, cannot be read: that is told.
    """
    counts, tensors, kept = {"te": 0, "unet": 0}, _of_the_word(config, family), dict[str, Shape]()
    rates = {"te": config.optimizer.text_encoder_lr, "unet": config.optimizer.unet_lr}
    try:
        file = (files or LoraFiles()).layers(path, family) if (path := config.adapter.network_weights) else None
        held = _held(path, file, family) if file else {}
        for name, shape in layers_of(family.card):
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
    if not {name for name in found if not is_further(name)} <= dict(layers_of(family.card)).keys():
        raise LoraFileError(f"{path!r} has layers that no {family.name} has.")
    return found


def _of_the_word(config: Settled, family: Family) -> dict[str, Shape]:
    """The vectors that are bundled in the file: for each text encoder as many as the trigger word has tokens."""
    count = config.embedding.embedding_vectors
    start, keys = f"{BUNDLE}.{config.text.trigger}.", ONE if len(TEXT[family.card]) == 1 else PAIR
    return {start + key: (count, width) for key, (_, width) in zip(keys, TEXT[family.card])} if count else {}


@functools.cache
def layers_of(card: str) -> tuple[tuple[str, Shape], ...]:
    """Names as in kohya's files of the family that a webui calls `card`; text encoders first."""
    family = {SD1.card: SD1, SD2.card: SD2, SDXL.card: SDXL}[card]
    text = [layer for prefix, sizes in zip(family.text_prefixes, TEXT[card]) for layer in _text_encoder(prefix, *sizes)]
    if card == SDXL.card:
        return (*text, *_xl_transformers(), *_xl_convolutions())
    return (*text, *_transformers(family), *_convolutions())


def _text_encoder(prefix: str, layers: int, width: int) -> Layers:
    sides = {"self_attn_q_proj": 1, "self_attn_k_proj": 1, "self_attn_v_proj": 1, "self_attn_out_proj": 1, "mlp_fc1": 4}
    for number in range(layers):
        for name, factor in sides.items():
            yield layer_name(prefix, number, name), (factor * width, width)
        yield layer_name(prefix, number, "mlp_fc2"), (width, 4 * width)


def _transformers(family: Family) -> Layers:
    places = [(f"down_blocks_{level}_attentions_{i}", CHANNELS[level]) for level in range(3) for i in range(2)]
    places += [("mid_block_attentions_0", CHANNELS[3])]
    places += [(f"up_blocks_{level}_attentions_{i}", CHANNELS[3 - level]) for level in range(1, 4) for i in range(3)]
    for place, width in places:
        yield from _transformer(f"lora_unet_{place}_", width, 1, family)


def _xl_transformers() -> Layers:
    for place, level in _xl_places():
        if XL_DEPTHS[level]:
            yield from _transformer(f"lora_unet_{place}_1_", CHANNELS[level], XL_DEPTHS[level], SDXL)


def _transformer(start: str, width: int, depth: int, family: Family) -> Layers:
    around = (width, width, 1, 1) if family is SD1 else (width, width)
    yield start + "proj_in", around
    yield start + "proj_out", around
    for number in range(depth):
        block = f"{start}transformer_blocks_{number}_"
        for attention, context in (("attn1", width), ("attn2", CONTEXT[family.card])):
            for name, inner in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out_0", width)):
                yield f"{block}{attention}_{name}", (width, inner)
        yield block + "ff_net_0_proj", (8 * width, width)
        yield block + "ff_net_2", (width, 4 * width)


def _xl_places() -> list[tuple[str, int]]:
    """The blocks of SDXL's U-Net that have residual blocks, with their levels; one of the middle stands for all of it."""
    places = [(f"input_blocks_{3 * level + 1 + i}", level) for level in range(3) for i in range(2)] + [("middle_block", 2)]
    return places + [(f"output_blocks_{3 * level + i}", 2 - level) for level in range(3) for i in range(3)]


def _convolutions() -> Layers:
    for level, width in enumerate(CHANNELS):
        for i in range(2):
            inner = CHANNELS[max(level - 1, 0)] if i == 0 else width
            yield from _residual(f"lora_unet_down_blocks_{level}_resnets_{i}", inner, width)
        if level < 3:
            yield f"lora_unet_down_blocks_{level}_downsamplers_0_conv", (width, width, 3, 3)
    for i in range(2):
        yield from _residual(f"lora_unet_mid_block_resnets_{i}", CHANNELS[3], CHANNELS[3])
    for level in range(4):
        for i, inner in enumerate(_joined(level, CHANNELS)):
            yield from _residual(f"lora_unet_up_blocks_{level}_resnets_{i}", inner, CHANNELS[3 - level])
        if level < 3:
            yield f"lora_unet_up_blocks_{level}_upsamplers_0_conv", (CHANNELS[3 - level], CHANNELS[3 - level], 3, 3)


def _xl_convolutions() -> Layers:
    channels = CHANNELS[:3]
    for level, width in enumerate(channels):
        for i in range(2):
            inner = channels[max(level - 1, 0)] if i == 0 else width
            yield from _residual(f"lora_unet_input_blocks_{3 * level + 1 + i}_0", inner, width, _LDM)
        if level < 2:
            yield f"lora_unet_input_blocks_{3 * level + 3}_0_op", (width, width, 3, 3)
    for i in (0, 2):
        yield from _residual(f"lora_unet_middle_block_{i}", channels[2], channels[2], _LDM)
    for level in range(3):
        width = channels[2 - level]
        for i, inner in enumerate(_joined(level, channels)):
            yield from _residual(f"lora_unet_output_blocks_{3 * level + i}_0", inner, width, _LDM)
        if level < 2:
            yield f"lora_unet_output_blocks_{3 * level + 2}_2_conv", (width, width, 3, 3)


def _joined(level: int, channels: tuple[int, ...]) -> list[int]:
    """What the three residual blocks of a level up read: what comes over from the way down is joined."""
    last = len(channels) - 1
    width, before, after = (channels[min(max(last - level + step, 0), last)] for step in (0, 1, -1))
    return [(before if i == 0 else width) + (after if i == 2 else width) for i in range(3)]


_DIFFUSERS = ("conv1", "time_emb_proj", "conv2", "conv_shortcut")
_LDM = ("in_layers_2", "emb_layers_1", "out_layers_3", "skip_connection")


def _residual(start: str, inner: int, width: int, names: tuple[str, ...] = _DIFFUSERS) -> Layers:
    first, time, second, shortcut = names
    yield f"{start}_{first}", (width, inner, 3, 3)
    yield f"{start}_{time}", (width, TIME)
    yield f"{start}_{second}", (width, width, 3, 3)
    if inner != width:
        yield f"{start}_{shortcut}", (width, inner, 1, 1)
