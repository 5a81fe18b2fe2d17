"""Cases 1 to 7: too little memory, and numbers that are not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import lib_lora.output.preview as preview_room
import lib_lora.training.latents as pictures_room
import lib_lora.training.optimizer as optimizer_room
import lib_lora.training.step as step_room
from lib_lora.errors import ConfigError
from lib_lora.events import Finished, SavedBetween, StepDone
from lib_lora.files.lora_file import read
from lib_lora.training.optimizer import Updater, loss_scaler
from lib_lora.training.precision import Precision
from tests.house import House

OOM = torch.cuda.OutOfMemoryError


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: set[int], error: BaseException) -> list[int]:
    """`error` in the calls of these numbers, from 1; returns a list that grows with every call."""
    real, made = getattr(owner, name), []

    def fails(*args: Any, **kwargs: Any) -> Any:
        made.append(len(made) + 1)
        if made[-1] in calls:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, fails)
    return made


def lora(run: Any) -> dict[str, torch.Tensor]:
    return read(run.of(Finished)[0].path)[0]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.case(1)
def test_no_memory_at_the_first_step(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try fails: once more with gradient checkpointing, which is told, then the end before step 1, with what to lower."""
    made = failing(monkeypatch, step_room, "compute_loss", set(range(1, 99)), OOM("CUDA out of memory"))
    run = house.run(quick())
    assert len(made) == 2 and not run.of(StepDone) and not run.of(Finished)
    told = "step 1, even with gradient checkpointing: Batch size (batch_size) is 1, Resolution (resolution) is 64 and Rank (rank) is 1; "
    assert len(run.told) == 1 and told in run.told[0], run.told


@pytest.mark.case(1)
def test_no_memory_while_images_are_encoded(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first image is encoded: the end before step 1, with the options that it hangs on, and their values."""
    failing(monkeypatch, pictures_room, "posteriors", {1}, OOM("CUDA out of memory"))
    run = house.run(quick(vae_batch_size=2))
    assert not run.of(StepDone) and len(run.told) == 1
    assert ".png': Images encoded at once (vae_batch_size) is 2 and Resolution (resolution) is 64; lower one" in run.told[0]


@pytest.mark.case(1, 2)
@pytest.mark.parametrize(("owner", "name", "call"), [(step_room, "compute_loss", 1), (step_room, "compute_loss", 3), (Updater, "accumulate", 3)],
                         ids=["forward of step 1", "forward of step 3", "backward of step 3"])  # fmt: skip
def test_a_step_is_made_again(
    owner: Any, name: str, call: int, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure in forward or backward: the same batch is made again with checkpointing; LoRA and losses equal the undisturbed run's."""
    whole = house.run(quick(steps=4, name="whole"))
    with monkeypatch.context() as patch:
        failing(patch, owner, name, {call}, OOM("CUDA out of memory"))
        run = house.run(quick(steps=4, name="again"))
    assert len(run.told) == 1 and f"at step {call}. This step is repeated" in run.told[0]
    assert equal(lora(run), lora(whole)) and run.job["losses"] == whole.job["losses"]


@pytest.mark.case(2)
def test_no_memory_in_the_optimizer(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the optimizer's own step may have changed half of it: no second try, one sentence, files of earlier steps stay."""
    failing(monkeypatch, torch.optim.AdamW, "step", {5}, OOM("CUDA out of memory"))  # two are made by the check of settings
    run = house.run(quick(steps=4, save_every_n_steps=2))
    assert [event.step for event in run.of(StepDone)] == [1, 2] and len(run.of(SavedBetween)) == 1
    assert len(run.told) == 1 and "ran out of memory at step 3" in run.told[0]


@pytest.mark.case(3)
def test_no_memory_for_a_sample(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory while a sample is decoded: told once, the training goes on to the same LoRA."""
    flat = {"sample_every_n_steps": 1, "sample_prompts": "a --s 1"}
    whole = house.run(quick(name="whole", **flat))
    with monkeypatch.context() as patch:
        failing(patch, preview_room, "sample", {1}, OOM("CUDA out of memory"))
        run = house.run(quick(name="again", **flat))
    assert len(run.told) == 1 and "continues without them" in run.told[0]
    assert equal(lora(run), lora(whole))


def spoiled(monkeypatch: pytest.MonkeyPatch, calls: set[int], value: float) -> None:
    real, made = step_room.compute_loss, []

    def compute(*args: Any) -> torch.Tensor:
        made.append(len(made) + 1)
        loss = real(*args)
        return loss * value if made[-1] in calls else loss

    monkeypatch.setattr(step_room, "compute_loss", compute)


@pytest.mark.case(4)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_without_a_number_is_left_out(value: float, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number at step 10: the optimizer is not called, the file after it equals the one before, the run goes on and says so."""
    flat = {"steps": 11, "save_every_n_steps": 1}
    spoiled(monkeypatch, {10}, value)
    run = house.run(quick(**flat))
    files = [read(event.path)[0] for event in run.of(SavedBetween)]
    assert equal(files[8], files[9]) and not equal(files[9], files[10]) and not equal(files[7], files[8])
    assert run.told == ["The loss of step 10 was not a number; the step was skipped."] and run.job["losses"][9] is None


@pytest.mark.case(4)
def test_five_in_a_row_end_the_run(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps in a row without a number: the run ends with a sentence, and the LoRA is saved as it was before them."""
    spoiled(monkeypatch, set(range(3, 99)), math.nan)
    run = house.run(quick(steps=20, save_every_n_steps=2))
    assert run.job["state"] == "failed" and "not a number any more. Lower the learning rates" in run.job["problems"][0]
    last = house.host.lora_folder() / "blob.safetensors"
    assert equal(read(last)[0], read(run.of(SavedBetween)[0].path)[0]) and len(run.of(StepDone)) == 6


@pytest.mark.case(4)
def test_gradients_without_a_number_change_nothing(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is a number with gradients that are none: the optimizer is not called."""
    real, made = Updater.accumulate, []

    def accumulate(self: Updater, loss: torch.Tensor) -> None:
        real(self, loss)
        made.append(loss)
        if len(made) == 2:
            next(p for p in self._parameters if p.grad is not None).grad.fill_(math.nan)

    monkeypatch.setattr(Updater, "accumulate", accumulate)
    run = house.run(quick(steps=3, save_every_n_steps=1))
    files = [read(event.path)[0] for event in run.of(SavedBetween)]
    assert equal(files[0], files[1]) and not equal(files[1], files[2]) and "step 2 was not a number" in run.told[0]


@pytest.mark.case(5)
def test_the_scaler_skips_and_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaler of torch at 2^24 with gradients that overflow: scale halved, update and schedule left out, then all goes on."""
    from lib_lora.config.settled import SettledOptimizer
    from tests.test_optimizer import pair

    updater = Updater([pair("unet")], SettledOptimizer(unet_lr=0.1, lr_scheduler="linear"), 4, Precision("no", torch.float32))
    cls = getattr(torch.amp, "GradScaler", None)
    if cls is None:
        pytest.skip("this torch has no scaler for the CPU")
    scaler = cls("cpu", init_scale=2.0**24)
    updater._scaler, updater._scales_loss = scaler, True
    weight = updater.optimizer.param_groups[0]["params"][0]
    before = weight.detach().clone()
    for factor, rate in ((3e38, 0.1), (1.0, 0.075)):
        updater.accumulate((weight * factor).sum())
        assert updater.update()
        assert updater.learning_rates() == pytest.approx([rate])
        if factor > 1:
            assert torch.equal(weight, before) and scaler.get_scale() == 2.0**23
    assert not torch.equal(weight, before) and loss_scaler(enabled=False, half_weights=False).is_enabled() is False


@pytest.mark.case(5)
def test_a_run_whose_gradients_overflow(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run under torch's scaler, scaled beyond what fp32 holds in its first step: the scale is halved, the step is left out, the schedule waits."""
    cls = getattr(torch.amp, "GradScaler", None)
    if cls is None:
        pytest.skip("this torch has no scaler for the CPU")
    flat = {"steps": 4, "lr_scheduler": "linear", "save_every_n_steps": 1}
    plain = house.run(quick(**flat, name="plain"))
    scalers: list[Any] = []

    def made(**_: object) -> Any:
        scalers.append(cls("cpu", init_scale=2.0**127, growth_interval=1000))
        return scalers[-1]

    monkeypatch.setattr(optimizer_room, "loss_scaler", made)
    monkeypatch.setattr(Precision, "scales_loss", True)
    real = step_room.compute_loss
    monkeypatch.setattr(step_room, "compute_loss", lambda *args, **kwargs: real(*args, **kwargs) * (64 if len(seen) == 0 else 1))
    seen: list[StepDone] = []
    run = house.run(quick(**flat), lambda event, _: seen.append(event) if isinstance(event, StepDone) else None)
    rates = [event.learning_rates[0] for event in seen]
    wanted = [event.learning_rates[0] for event in plain.of(StepDone)]
    assert len(scalers) == 1 and scalers[0].get_scale() == 2.0**126
    assert len(rates) == 4 and rates[1:] == wanted[:3], (rates, wanted)
    assert all(bool(torch.isfinite(value).all()) for value in lora(run).values())


@pytest.mark.case(7)
def test_a_rate_that_blows_up(house: House, quick: Any) -> None:
    """1000 is refused by its bounds; 100, the largest, really trained: it ends within 20 steps, and every file is finite."""
    with pytest.raises(ConfigError, match="must be a number from 0 to 100"):
        quick(unet_lr=1e3)
    run = house.run(
        quick(
            steps=40,
            unet_lr=100,
            save_every_n_steps=1,
            save_last_n_steps=3,
            down_lr_weight="",
            up_lr_weight="",
            train_layers="all",
        )
    )
    assert run.job["state"] == "failed" and "Lower the learning rates" in run.job["problems"][0]
    assert len(run.of(StepDone)) <= 20
