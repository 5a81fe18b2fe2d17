"""Rules over several options of the LoRA."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable

from lib_lora.config.adapter import MULTIPLYING, AdapterConfig
from lib_lora.config.blocks import (
    block_alphas,
    block_ranks,
    conv_alphas,
    conv_ranks,
    down_factors,
    middle_factors,
    rate_factors,
    up_factors,
)
from lib_lora.config.groups import Rule, TrainConfig, is_read, problem, title
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.options import shown
from lib_lora.config.settled import ModelRule, Settled
from lib_lora.errors import ConfigError, Problem
from lib_lora.families.family import Layout
from lib_lora.families.known import LAYOUTS

Reader = Callable[[AdapterConfig, Layout], object]
MOST_OF_OFT = 160  # half the narrowest layer of a full-size model


def some_block_is_trained(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
    adapter, rate = config.adapter, (settled or config).optimizer.text_encoder_lr
    if rate != 0 or config.optimizer.unet_lr == 0:
        return None
    text = f"{title('block_dims')} and rate factors (down_lr_weight …): no block has both above 0"
    if not any(trains_some_block(adapter, layout) for layout in LAYOUTS):
        found = Problem("block_dims", f"{text}; nothing would be trained.")
        return settled.because(found) if settled and config.optimizer.text_encoder_lr is None else found
    if settled is None or trains_some_block(adapter, settled.layout) or not _reads_all(adapter, settled.layout):
        return None
    return settled.because(Problem("block_dims", f"{text}."))


def ranks_have_one_source(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter.dim_from_weights and not adapter.network_weights:
        return problem("dim_from_weights", f"needs a file in {title('network_weights')}.")
    if adapter.dim_from_weights and (adapter.block_dims or adapter.block_alphas):
        others = f"{title('block_dims')} or {title('block_alphas')}"
        return problem("dim_from_weights", f"cannot be combined with {others}; use one of them.")
    return None


def strengths_fit_the_files(config: TrainConfig) -> Problem | None:
    """Multipliers beyond the number of files are ignored, as in sd-scripts."""
    adapter = config.adapter
    read = adapter.base_weights_multiplier[: len(adapter.base_weights)]
    try:
        strengths = [float(text) for text in read]
        wanted = "" if all(map(math.isfinite, strengths)) else "finite numbers"
    except ValueError:
        wanted = "numbers"
    return problem("base_weights_multiplier", f"got {shown(' '.join(read))}, must be {wanted}.") if wanted else None


def convolutions_are_chosen(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter.train_layers == "all" or not adapter.trains_convolutions:
        return None
    return problem(
        "train_layers",
        f"{adapter.train_layers} excludes convolutions; choose all, or set {title('conv_dim')} to 0 and leave "
        f"{title('conv_block_dims')} empty.",
    )


def type_has_upper_matrices(config: TrainConfig) -> Problem | None:
    """LoRA+ raises the learning rate of lora_up."""
    kind = config.adapter.adapter_type
    if kind in ("lora", "dora") or not _has_ratio(config):
        return None
    return problem(
        "adapter_type", f"LoRA+ (loraplus_lr_ratio …) needs lora or dora, since {kind} has no up matrices; set it to 0."
    )


def type_knows_the_weight(config: TrainConfig) -> Problem | None:
    kind = config.adapter.adapter_type
    if kind not in ("dora", *MULTIPLYING) or not config.adapter.base_weights:
        return None
    return problem(
        "adapter_type",
        f"{kind} depends on the checkpoint's own weights and cannot be combined with {title('base_weights')}; choose lora, or "
        "leave that empty.",
    )


def type_has_convolutions(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter.adapter_type not in ("ia3", "glora") or not adapter.trains_convolutions:
        return None
    return problem(
        "conv_dim",
        f"the webui does not read {adapter.adapter_type} of convolutions; set it to 0 and leave {title('conv_block_dims')} "
        f"empty, or choose another {title('adapter_type')}.",
    )


def type_has_a_norm(config: TrainConfig) -> Problem | None:
    kind = config.adapter.adapter_type
    if kind not in MULTIPLYING or config.adapter.scale_weight_norms == 0:
        return None
    return problem("scale_weight_norms", f"does not work with {kind}, which multiplies the checkpoint's own weight; set it to 0.")


def blocks_can_turn(config: TrainConfig) -> Problem | None:
    """A block of one row cannot rotate. Ranks above half the narrowest layer (320) leave such blocks."""
    adapter = config.adapter
    if adapter.adapter_type != "diag-oft":
        return None
    given = {adapter.rank, adapter.conv_dim}
    for read, layout in itertools.product((block_ranks, conv_ranks), LAYOUTS):
        with contextlib.suppress(ConfigError):  # of another family; if of none, its own rule reports it
            given |= set(read(adapter.as_read, layout))
    wrong = sorted(rank for rank in given if rank == 1 or rank > MOST_OF_OFT)
    if not wrong:
        return None
    return problem("rank", f"got {wrong[0]}, but for diag-oft it is the block size and must be from 2 to {MOST_OF_OFT}.")


def type_is_scaled(config: TrainConfig) -> Problem | None:
    """LyCORIS scales GLoRA by alpha, the webui's loader does not."""
    adapter = config.adapter
    alphas_differ = is_read(config, "block_alphas") and adapter.block_alphas
    if adapter.adapter_type != "glora" or (adapter.alpha == adapter.rank and not alphas_differ):
        return None
    return problem(
        "alpha",
        f"got {adapter.alpha:g}, but the webui does not scale glora; set it to the rank, {adapter.rank}, and leave "
        f"{title('block_alphas')} empty.",
    )


def units_divide_ranks(config: TrainConfig) -> Problem | None:
    adapter, conv_block_dims = config.adapter, is_read(config, "conv_block_dims") and config.adapter.conv_block_dims
    rank = f"{title('rank')}, {adapter.rank}"
    if adapter.unit == 0:
        return None
    if adapter.adapter_type != "lora":
        text = f"does not work with {title('adapter_type')} {adapter.adapter_type}; choose lora, or set it to 0."
    elif adapter.block_dims or conv_block_dims or adapter.conv_dim not in (0, adapter.rank):
        text = (
            f"got {adapter.unit}, but all layers need the same rank to be cut down together; leave {title('block_dims')} empty "
            f"and set {title('conv_dim')} to 0 or to the rank, or set unit to 0."
        )
    elif adapter.rank % adapter.unit:
        text = f"got {adapter.unit}, must divide {rank}, or be 0 to train all ranks."
    elif adapter.unit >= adapter.rank:
        text = f"got {adapter.unit}, must be less than {rank}, or 0 to train all ranks."
    else:
        return None
    return problem("unit", text)


def rates_reach_the_optimizer(config: TrainConfig) -> Problem | None:
    optimizer = config.optimizer
    several = config.adapter.has_factors or _has_ratio(config)
    if not several or not (optimizer_spec(optimizer.optimizer).one_rate or optimizer.lr_scheduler == "adafactor"):
        return None
    return problem(
        "optimizer",
        f"{optimizer.optimizer} finds one learning rate for everything, so LoRA+ (loraplus_lr_ratio …) and rate factors "
        "(down_lr_weight …) do not work with it; choose AdamW, or leave them out.",
    )


def _has_ratio(config: TrainConfig) -> bool:
    """Whether a LoRA+ ratio is given and read."""
    names = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
    return any(getattr(config.optimizer, name) and is_read(config, name) for name in names)


def trains_some_block(adapter: AdapterConfig, layout: Layout) -> bool:
    """Whether any block has a rank and a factor above 0; True if the lists fit no family, which has its own rule."""
    adapter = adapter.as_read
    try:
        ranks, factors = block_ranks(adapter, layout), rate_factors(adapter, layout) or [1.0] * layout.blocks
        ranks = [rank + conv_rank for rank, conv_rank in zip(ranks, conv_ranks(adapter, layout))]
    except ConfigError:
        return not any(_reads_all(adapter, other) for other in LAYOUTS)
    inner = slice(layout.ends, layout.blocks - layout.ends)
    return any(rank > 0 and factor > 0 for rank, factor in zip(ranks[inner], factors[inner]))


def _reads_all(adapter: AdapterConfig, layout: Layout) -> bool:
    """Whether all per-block options fit `layout`."""
    return all(_refusal(read, adapter, layout) is None for read in READERS.values())


def _refusal(read: Reader, adapter: AdapterConfig, layout: Layout) -> str | None:
    try:
        read(adapter.as_read, layout)
    except ConfigError as error:
        return error.problems[0]
    return None


def blocks_can_be_read(option: str, read: Reader) -> ModelRule:
    """The rule that a per-block option fits the blocks of some family, and those of the model if it is known."""

    def rule(config: TrainConfig, settled: Settled | None = None) -> Problem | None:
        refusals = {layout: _refusal(read, config.adapter, layout) for layout in LAYOUTS}
        if all(refusals.values()):
            return Problem(option, str(refusals[LAYOUTS[0]]))
        refusal = refusals[settled.layout] if settled else None
        return settled.because(Problem(option, refusal)) if settled and refusal else None

    return rule


READERS: dict[str, Reader] = {
    "block_dims": block_ranks,
    "block_alphas": block_alphas,
    "conv_block_dims": conv_ranks,
    "conv_block_alphas": conv_alphas,
    "down_lr_weight": down_factors,
    "mid_lr_weight": middle_factors,
    "up_lr_weight": up_factors,
}
MODEL_RULES: tuple[ModelRule, ...] = (
    *(blocks_can_be_read(option, read) for option, read in READERS.items()),
    some_block_is_trained,
)
RULES: tuple[Rule, ...] = (
    ranks_have_one_source,
    strengths_fit_the_files,
    rates_reach_the_optimizer,
    convolutions_are_chosen,
    type_has_upper_matrices,
    type_knows_the_weight,
    type_has_convolutions,
    type_has_a_norm,
    type_is_scaled,
    blocks_can_turn,
    units_divide_ranks,
)
