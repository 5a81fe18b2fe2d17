"""Every layer of a family that can get an adapter, with the shape of its weight, without a model."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from lib_lora.families.family import Family, UNet
from lib_lora.model.adapter_types import Shape
from lib_lora.model.layer_names.text import layer_name
from lib_lora.model.layer_names.unet import Place, Side, unet_path

Layers = Iterator[tuple[str, Shape]]
Places = Iterator[tuple[Place, Shape]]


@functools.cache
def layers_of(family: Family) -> tuple[tuple[str, Shape], ...]:
    """Names, as in kohya's files of the family, and weight shapes; text encoders first."""
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
    """Input channels of the three residual blocks of an up level, which include those of the skip connections."""
    last = len(channels) - 1
    width, before, after = (channels[min(max(last - level + step, 0), last)] for step in (0, 1, -1))
    return [(before if i == 0 else width) + (after if i == 2 else width) for i in range(3)]


def _residual(side: Side, level: int, number: int, inner: int, width: int, unet: UNet) -> Places:
    shapes = {"conv1": (width, inner, 3, 3), "time_emb_proj": (width, 4 * unet.channels[0]), "conv2": (width, width, 3, 3)}
    if inner != width:
        shapes["conv_shortcut"] = (width, inner, 1, 1)
    for name, shape in shapes.items():
        yield Place(side, level, number, "residual", name), shape
