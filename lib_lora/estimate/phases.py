"""Bytes of each phase of a run, counted on a meta model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from lib_lora.config.settled import Settled
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import CHUNK
from lib_lora.estimate.ledger import Ledger
from lib_lora.estimate.meta import META, meta_ops, recomputed
from lib_lora.model.adapter import Adapter, attached, parameters
from lib_lora.model.adapter_types import is_learning
from lib_lora.model.base import BaseModel, networks
from lib_lora.model.checkpointing import checkpointed_forwards
from lib_lora.model.conditioning import Conditioning, TextInputs, encode
from lib_lora.model.meta_device import EmulatedDevice
from lib_lora.model.patching import forwards_replaced
from lib_lora.model.trainable import training_forwards
from lib_lora.training.step import StepInputs, compute_loss


@dataclass(frozen=True)
class Step:
    """Bytes of a training step, without weights and adapters: kept at the end of forward, and at the peak."""

    kept: int
    peak: int


class Counter:
    """Counts the memory of `alike` (see `meta_model`) on a device of `device_type`. `autocast`: its dtype, or None."""

    def __init__(
        self,
        config: Settled,
        alike: BaseModel,
        device_type: str,
        autocast: torch.dtype | None,
        adapters: Sequence[Adapter],
        frozen: Sequence[Adapter] = (),
    ) -> None:
        self._config, self._alike, self._device_type = config, alike, device_type
        self._emulated = EmulatedDevice(device_type, autocast)
        self._adapters, self._frozen = list(adapters), list(frozen)
        self.trains_text = any(adapter.target.part == "text_encoder" and is_learning(adapter) for adapter in self._adapters)

    def step(self, size: Size, batch: int, *, checkpointing: bool) -> Step:
        """Forward and backward of one step, of two batches if gradients are accumulated."""
        blocks = checkpointed_forwards(networks(self._alike), recomputed) if checkpointing else {}
        with self._trainable(), forwards_replaced(blocks), torch.enable_grad():
            inputs = self._inputs(size, batch)
            with self._ledger() as ledger:
                for _ in range(min(self._config.optimizer.gradient_accumulation_steps, 2)):
                    before = ledger.now
                    with meta_ops(self._emulated):
                        loss = compute_loss(self._alike, inputs, self._config.objective, self._config.text.clip_skip)
                    kept = ledger.now - before
                    with meta_ops(EmulatedDevice(self._device_type)):
                        if loss.requires_grad:
                            loss.backward()  # type: ignore[no-untyped-call]
                    del loss
                for parameter in parameters(self._adapters):
                    parameter.grad = None
        return Step(kept, ledger.peak)

    def encoding(self, size: Size, batch: int) -> int:
        """Peak of the VAE's encoder on `batch` images of `size`."""
        with torch.no_grad(), meta_ops(EmulatedDevice(self._device_type)), self._ledger() as ledger:
            self._alike.encode_image(torch.empty(batch, 3, size.height, size.width, device=META))
        return int(ledger.peak)

    def drawing(self, size: Size) -> int:
        """Peak of sampling one image with guidance: the U-Net on two latents, then the VAE's decoder."""
        latents = torch.empty(1, *self._alike.family.latent_shape(*size), device=META)
        with self._trainable(), torch.no_grad():
            inputs = self._inputs(size, 2)
            with self._ledger() as ledger:
                with meta_ops(self._emulated):
                    compute_loss(self._alike, inputs, self._config.objective, self._config.text.clip_skip)
                with meta_ops(EmulatedDevice(self._device_type)):
                    self._alike.decode_latents(latents)
        return int(ledger.peak)

    def context_bytes(self) -> int:
        """Bytes that are cached per caption if no text encoder is trained."""
        with torch.no_grad(), meta_ops(self._emulated):
            found = self._context(1)
        return sum(tensor_bytes([one]) for one in (found.context, found.pooled) if one is not None)

    @contextmanager
    def _trainable(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(training_forwards(self._alike, torch.device(self._device_type)))
            stack.enter_context(attached(self._adapters, self._frozen))
            yield

    def _ledger(self) -> Ledger:
        modules: list[nn.Module] = [*networks(self._alike), self._alike.vae]
        weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        known = [*weights, *parameters(self._adapters), *parameters(self._frozen), *self._alike.noise_process.tensors()]
        return Ledger(known, resident=self._device_type == "cpu")

    def _inputs(self, size: Size, batch: int) -> StepInputs:
        latents = torch.empty(batch, *self._alike.family.latent_shape(*size), device=META)
        text: TextInputs | Conditioning = self._ids(batch)
        if not self.trains_text:
            with torch.no_grad(), meta_ops(self._emulated):
                text = self._context(batch)
        timesteps = torch.empty(batch, dtype=torch.int64, device=META)
        sizes = torch.empty(batch, 6, dtype=torch.int64, device=META)
        return StepInputs(latents, torch.empty_like(latents), timesteps, text, sizes)

    def _ids(self, batch: int) -> TextInputs:
        chunks = int(self._config.text.max_token_length) // (CHUNK - 2)
        ids = torch.empty(batch, chunks, CHUNK, dtype=torch.int64, device=META)
        return TextInputs(tuple(ids for _ in self._alike.text_encoders), None, self._config.text.token_rule == "webui")

    def _context(self, batch: int) -> Conditioning:
        return encode(self._alike.text_encoders, self._ids(batch), self._config.text.clip_skip)


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the values of `tensors`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
