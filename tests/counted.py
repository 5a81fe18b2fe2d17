"""A real training step beside the memory account: what autograd saves, and the peak, counted on real tensors."""

from __future__ import annotations

import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import caption_ids
from lib_lora.estimate.ledger import Ledger
from lib_lora.estimate.meta import meta_model
from lib_lora.estimate.phases import Counter
from lib_lora.model.adapter import attached, parameters
from lib_lora.model.base import BaseModel, networks
from lib_lora.model.checkpointing import checkpointed_forwards
from lib_lora.model.conditioning import TextInputs
from lib_lora.model.patching import forwards_replaced
from lib_lora.settle import settle
from lib_lora.training.initial_adapters import initial_adapters
from lib_lora.training.step import StepInputs, compute_loss


def counted_step(config: TrainConfig, base: BaseModel, size: Size, *, checkpointing: bool) -> tuple[int, int]:
    """Bytes that are kept after forward, and alive at most, of a step that is really computed on borrowed `base`."""
    pairs = initial_adapters(config, base)
    latents = torch.randn(config.data.batch_size, 4, size.height // 8, size.width // 8)
    ids = tuple(
        torch.tensor([caption_ids(base.tokenizer, "a blob", 75, encoder.pad_id)] * len(latents)) for encoder in base.text_encoders
    )
    sizes = torch.tensor([[*size, 0, 0, *size]] * len(latents))
    inputs = StepInputs(latents, torch.randn_like(latents), torch.full((len(latents),), 500), TextInputs(ids), sizes)
    modules = [*networks(base), base.vae]
    weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    blocks = checkpointed_forwards(networks(base)) if checkpointing else {}
    known = [*weights, *parameters(pairs), *base.noise_process.tensors(), latents, inputs.target, inputs.timesteps, sizes, *ids]
    with attached(pairs), forwards_replaced(blocks), Ledger(known, resident=True) as ledger:
        loss = compute_loss(base, inputs, config.objective, config.text.clip_skip)
        kept = ledger.now
        loss.backward()  # type: ignore[no-untyped-call]
    return kept, ledger.peak


def told_step(config: TrainConfig, base: BaseModel, size: Size, *, checkpointing: bool) -> tuple[int, int]:
    """The same by the account."""
    alike, config = meta_model(base), settle(config, base.detected)
    told = Counter(config, alike, "cpu", None, initial_adapters(config, alike)).step(
        size, config.data.batch_size, checkpointing=checkpointing
    )
    return told.kept, told.peak
