"""The trainer: gradient accumulation, stopping the text encoder, gradient checkpointing, number formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lib_lora.check import look
from lib_lora.errors import ConfigError
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.adapter import State, state_dict
from lib_lora.plan import Batch
from lib_lora.settle import settle
from lib_lora.training.latents import LatentSource
from lib_lora.training.precision import choose_precision
from lib_lora.training.trainer import Trainer
from tests.conftest import small_config, write_picture
from tests.models import shared_host


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    return write_squares(tmp_path)


def write_squares(below: Path) -> Path:
    """Four captioned pictures of one size."""
    folder = below / "squares"
    for number in range(4):
        write_picture(folder / f"{number}.png", 64, 64, seed=number)
        (folder / f"{number}.txt").write_text(f"a blob, number {number}")
    return folder


@pytest.fixture
def host(shallow_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(shallow_checkpoint, tmp_path / "out")


def trained(
    host: StandaloneHost, squares: Path, updates: list[list[Batch]], **flat: object
) -> tuple[Trainer, State, list[float]]:
    """A session after these updates, what it would save, and its losses."""
    config = small_config(squares, host.lora_folder(), repeats=1, batch_size=4, **{"steps": 4, **flat})
    plan = look(config, host).checked()
    config = settle(config, host.detected_model())
    with host.borrow_model() as base:
        pictures = LatentSource(config, plan, base)
        assert list(pictures.encode()) == [1, 2, 3, 4]
        precision = choose_precision(config.precision, base.device, next(base.unet.parameters()).dtype)
        trainer = Trainer(config, plan, base, pictures, precision)
        losses = [trainer.step(update).loss for update in updates]
        with trainer.result():
            return trainer, state_dict(trainer.adapters), losses


def farthest(one: State, other: State) -> float:
    return max(float((one[key] - other[key]).abs().max()) for key in one)


WHOLE = [[Batch(0, 0, [0, 1, 2, 3])], [Batch(1, 0, [0, 1, 2, 3])]]
HALVES = [[Batch(step, 0, [0, 1]), Batch(step, 0, [2, 3], first=2)] for step in (0, 1)]


def test_two_half_batches_are_one_batch(host: StandaloneHost, squares: Path) -> None:
    _, whole, losses = trained(host, squares, WHOLE)
    _, halves, means = trained(host, squares, HALVES, gradient_accumulation_steps=2)
    _, unaccumulated, _ = trained(host, squares, [[batch] for update in HALVES for batch in update])
    assert losses == pytest.approx(means, rel=1e-5)
    assert farthest(whole, halves) < 1e-4 < 5e-4 < farthest(whole, unaccumulated)  # AdamW makes much of rounding


@pytest.mark.parametrize("stop", [1, 0.25])
def test_the_text_encoder_really_stops(host: StandaloneHost, squares: Path, stop: float) -> None:
    updates = [[Batch(step, 0, [0, 1, 2, 3])] for step in range(4)]
    trainer, stopped, _ = trained(host, squares, updates, stop_text_encoder_training=stop)
    _, first, _ = trained(host, squares, updates[:1])
    _, whole, _ = trained(host, squares, updates)
    text = [key for key in stopped if key.startswith("lora_te") and "alpha" not in key]
    assert all(torch.equal(stopped[key], first[key]) for key in text)
    assert farthest({key: whole[key] for key in text}, first) > 0
    assert farthest({key: stopped[key] for key in stopped if key.startswith("lora_unet")}, first) > 0


def test_checkpointing_changes_nothing_but_what_is_kept(host: StandaloneHost, squares: Path) -> None:
    results, kept = [], []
    for choice in ("off", "on"):
        with counted_bytes() as counted:
            results.append(trained(host, squares, WHOLE, gradient_checkpointing=choice)[1])
        kept.append(counted[0])
    assert farthest(*results) < 1e-6 and kept[1] < 0.5 * kept[0]


def test_full_bf16_trains_in_bf16(host: StandaloneHost, squares: Path) -> None:
    trainer, state, _ = trained(host, squares, WHOLE, mixed_precision="bf16", full_bf16=True)
    assert {pair.down.dtype for pair in trainer.adapters} == {torch.bfloat16}
    mixed = trained(host, squares, WHOLE, mixed_precision="bf16")[0]
    assert {pair.down.dtype for pair in mixed.adapters} == {torch.float32}
    assert any(bool(value.abs().max() > 0) for key, value in state.items() if "lora_up" in key)


@pytest.mark.case(45)
def test_a_base_stored_in_8_bits_is_trained_on_as_it_is(shallow_checkpoint: Path, squares: Path, tmp_path: Path) -> None:
    """As the webui's setting "FP8 weight" leaves it: Linear and convolution in float8, the rest as before."""
    host = StandaloneHost(shallow_checkpoint, tmp_path / "out")
    exact = trained(host, squares, WHOLE, mixed_precision="bf16")[2]
    with host.borrow_model() as base:
        layers = [m for m in base.unet.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
        for layer in layers:
            layer.to(torch.float8_e4m3fn)
        before = [layer.weight.detach().view(torch.uint8).clone() for layer in layers]
    trainer, state, losses = trained(host, squares, WHOLE, mixed_precision="auto")
    assert trainer.precision.fp8_base and trainer.precision.name == "bf16"
    assert losses == pytest.approx(exact, rel=0.1) and losses != exact, "rounding alone parts it from the weights it was made of"
    assert any(bool(value.abs().max() > 0) for key, value in state.items() if "lora_unet" in key and "lora_up" in key)
    assert all(torch.equal(layer.weight.view(torch.uint8), old) for layer, old in zip(layers, before))
    with pytest.raises(ConfigError, match="loaded in float8_e4m3fn; choose fp16 or bf16"):
        trained(host, squares, WHOLE, mixed_precision="no")


class counted_bytes:  # noqa: N801 - used as a context manager
    """Bytes that autograd keeps for backward while it lasts, in a list of one."""

    def __enter__(self) -> list[int]:
        self._counted = [0]

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            self._counted[0] += tensor.numel() * tensor.element_size()
            return tensor

        self._hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self._counted

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
