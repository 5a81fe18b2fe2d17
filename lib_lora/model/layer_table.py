"""Every layer of SD 1.x that can get an adapter, with the shape of its weight: what can be told before a model is there."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError
from lib_lora.model.blocks import rank_and_alpha
from lib_lora.model.kinds import Shape, tensor_shapes

CHANNELS = (320, 640, 1280, 1280)
TEXT, TIME = 768, 1280
BYTES = {"float": 4, "fp16": 2, "bf16": 2}
HEADER = 100  # bytes that a file's header takes for each tensor

Layers = Iterator[tuple[str, Shape]]


def layers_text(config: TrainConfig) -> str:
    """How many layers of an SD 1.x are trained, and how large the file gets; "" where a file to go on with decides."""
    if config.adapter.network_weights:
        return ""
    rates = {"te": config.optimizer.text_encoder_lr, "unet": config.optimizer.unet_lr}
    counts, tensors = {"te": 0, "unet": 0}, list[Shape]()
    try:
        for name, shape in sd1_layers():
            part, rank = name.split("_")[1], rank_and_alpha(name, config.adapter)[0]
            if rates[part] > 0 and rank > 0:
                counts[part] += 1
                tensors += [*tensor_shapes(shape, rank, config.adapter, name).values(), ()]  # and its alpha
    except ConfigError:
        return ""  # ranks or factors that cannot be read: their rules tell
    size = len(tensors) * HEADER + BYTES[config.precision.save_precision] * sum(math.prod(sides) for sides in tensors)
    return (
        f"{sum(counts.values())} layers of an SD 1.x: {counts['te']} of the text encoder, {counts['unet']} of the U-Net; "
        f"a file of {size / 1e6:.1f} MB"
    )


@functools.cache
def sd1_layers() -> tuple[tuple[str, Shape], ...]:
    """Names as in kohya's files, text encoder first."""
    return (*_text_encoder(), *_transformers(), *_convolutions())


def _text_encoder() -> Layers:
    sides = {"self_attn_q_proj": 1, "self_attn_k_proj": 1, "self_attn_v_proj": 1, "self_attn_out_proj": 1, "mlp_fc1": 4}
    for number in range(12):
        start = f"lora_te_text_model_encoder_layers_{number}_"
        for name, factor in sides.items():
            yield start + name, (factor * TEXT, TEXT)
        yield start + "mlp_fc2", (TEXT, 4 * TEXT)


def _transformers() -> Layers:
    places = [(f"down_blocks_{level}_attentions_{i}", CHANNELS[level]) for level in range(3) for i in range(2)]
    places += [("mid_block_attentions_0", CHANNELS[3])]
    places += [(f"up_blocks_{level}_attentions_{i}", CHANNELS[3 - level]) for level in range(1, 4) for i in range(3)]
    for place, width in places:
        start, block = f"lora_unet_{place}_", f"lora_unet_{place}_transformer_blocks_0_"
        yield start + "proj_in", (width, width, 1, 1)
        yield start + "proj_out", (width, width, 1, 1)
        for attention, context in (("attn1", width), ("attn2", TEXT)):
            for name, inner in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out_0", width)):
                yield f"{block}{attention}_{name}", (width, inner)
        yield block + "ff_net_0_proj", (8 * width, width)
        yield block + "ff_net_2", (width, 4 * width)


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
        width, before, after = (CHANNELS[min(max(3 - level + step, 0), 3)] for step in (0, 1, -1))
        for i in range(3):
            inner = (before if i == 0 else width) + (after if i == 2 else width)  # what comes over from the way down is joined
            yield from _residual(f"lora_unet_up_blocks_{level}_resnets_{i}", inner, width)
        if level < 3:
            yield f"lora_unet_up_blocks_{level}_upsamplers_0_conv", (width, width, 3, 3)


def _residual(start: str, inner: int, width: int) -> Layers:
    yield start + "_conv1", (width, inner, 3, 3)
    yield start + "_time_emb_proj", (width, TIME)
    yield start + "_conv2", (width, width, 3, 3)
    if inner != width:
        yield start + "_conv_shortcut", (width, inner, 1, 1)
