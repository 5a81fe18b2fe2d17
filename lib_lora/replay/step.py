"""Replays a recorded sd-scripts run through our own training step, and measures how far losses and weights differ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_lora.config.groups import TrainConfig, all_options
from lib_lora.config.settled import Settled
from lib_lora.errors import ConfigError, ModelError
from lib_lora.files.lora_file import read
from lib_lora.kohya.importing import KOHYA_DEFAULTS, from_kohya
from lib_lora.model.adapter import Adapter, State, adapters_from_state, attached, state_dict
from lib_lora.model.base import BaseModel, networks
from lib_lora.model.checkpointing import checkpointed_forwards, choose_checkpointing
from lib_lora.model.dropout import Dropout
from lib_lora.model.patching import Forward, forwards_replaced
from lib_lora.model.targets import adaptable, fitted
from lib_lora.model.tensor_rules import is_finite
from lib_lora.objective.loss import noise_schedule
from lib_lora.settle import settled_for
from lib_lora.training.continued_files import is_trained
from lib_lora.training.initial_adapters import merged_adapters
from lib_lora.training.optimizer import Updater
from lib_lora.training.precision import choose_precision
from lib_lora.training.step import StepInputs, training_step
from lib_lora.training.texts import Texts

# The recording holds the results of these: captions, latents, noise, noisy latents and timesteps as they were used.
_STILL_COUNT = {"prior_loss_weight", "alpha_mask", "masked_loss", "clip_skip", "max_token_length", "weighted_captions"}
_RECORDED = frozenset(
    {opt.declaration.kohya or opt.name for opt in all_options() if opt.group in ("data", "text")} - _STILL_COUNT
    | {"seed", "save_precision"}
)

_PICTURES = ("latents", "noise", "noisy_latents")
_SIZES = ("original_sizes_hw", "crop_top_lefts", "target_sizes_hw")


@dataclass(frozen=True)
class Recording:
    """A recorded run: tensors by name, captions and losses per step. `sdxl`: of SDXL, not of SD 1.x or 2.x."""

    tensors: State
    config: TrainConfig
    captions: list[list[str]]
    losses: list[float]
    sdxl: bool = False

    def group(self, prefix: str) -> State:
        """The tensors whose names start with `prefix`, without it."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def load_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        ConfigError: the file is no recording, or uses options that are not supported.
        LoraFileError: the file is no safetensors file.
    """
    tensors, metadata = read(path)
    try:
        config, captions, losses = (json.loads(metadata[key]) for key in ("config", "captions", "losses"))
        sdxl = bool(json.loads(metadata.get("sdxl", "false")))
        given = {key: value for key, value in config.items() if value is not None}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _unfit(f"its metadata is not that of a recording ({type(error).__name__}: {error})") from error
    settings = from_kohya({**KOHYA_DEFAULTS, **given}, without_effect=_RECORDED)
    if problems := settings.problems():
        raise ConfigError([f"The recording cannot be replayed: {problem}" for problem in problems])
    built = settings.config()
    if Dropout(built.adapter, built.run.seed).used:
        raise _unfit("it does not contain what its dropout dropped")
    problem = _problem(tensors, captions, losses, sdxl=sdxl)
    if problem:
        raise _unfit(problem)
    return Recording(tensors, built, captions, losses, sdxl)


def _unfit(reason: str) -> ConfigError:
    return ConfigError([f"The recording cannot be replayed: {reason}."])


def _problem(tensors: State, captions: Any, losses: Any, *, sdxl: bool) -> str | None:
    """Why these are not the steps of a run, as a phrase; None if they are."""
    if not isinstance(losses, list) or not losses or not all(type(loss) is float and math.isfinite(loss) for loss in losses):
        return "losses must be a list of finite numbers"
    lines = isinstance(captions, list) and all(
        isinstance(step, list) and all(isinstance(c, str) for c in step) for step in captions
    )
    if not lines or len(captions) != len(losses) or not all(captions):
        return "captions must be a list of texts for each loss"
    for step, batch in enumerate(captions):
        names = {**dict.fromkeys(_PICTURES, 4), "timesteps": 1, **(dict.fromkeys(_SIZES, 2) if sdxl else {})}
        found = {name: tensors.get(f"step{step}/{name}") for name in names}
        for name, value in found.items():
            whole = value is not None and value.dim() == names[name] and len(value) == len(batch) and is_finite({name: value})
            if not whole:
                return f"step{step}/{name} is missing, or does not have {len(batch)} images"
        timesteps = found["timesteps"]
        assert timesteps is not None
        if timesteps.dtype != torch.int64 or not bool(((timesteps >= 0) & (timesteps < 1000)).all()):
            return f"step{step}/timesteps must be whole numbers from 0 to 999"
        if len({value.shape for name, value in found.items() if name in _PICTURES and value is not None}) > 1:
            return f"the latents of step {step} have several shapes"
    deltas = {key.removeprefix("delta/"): value for key, value in tensors.items() if key.startswith("delta/")}
    if not deltas or any(f"init/{key}" not in tensors or tensors[f"init/{key}"].shape != deltas[key].shape for key in deltas):
        return "init/ and delta/ must contain the same layers"
    return None


def replay(recording: Recording, base: BaseModel) -> dict[str, Any]:
    """Train as recorded, and return how far losses and weights are from the recording's.

    Raises:
        ModelError: the recording is of another model family.
    """
    if recording.sdxl != base.family.unet.reads_sizes:
        recorded_of = "SDXL" if recording.sdxl else "SD 1.x or 2.x"
        raise ModelError(f"The recording is of {recorded_of}, the checkpoint is {base.family.name}; choose the other one.")
    losses, adapters, names = train_recorded(recording, base)
    init, recorded = (fitted(base.targets(), recording.group(prefix)) for prefix in ("init/", "delta/"))
    ours = {key: value - init[key] for key, value in state_dict(adapters).items() if not key.endswith(".alpha")}
    cosines = [_cosine(ours[key], recorded[key].float()) for key in ours if key in recorded]
    return {
        "loss_rel_err": [abs(a - b) / abs(b) for a, b in zip(losses, recording.losses)],
        "delta_cosine": _cosine(_joined(ours, recorded), _joined(recorded, ours)),
        "delta_cosine_min": min(cosines),
        "keys_missing": len(set(recorded) - names),
        "keys_unexpected": len(names - set(recorded)),
    }


def train_recorded(recording: Recording, base: BaseModel) -> tuple[list[float], list[Adapter], set[str]]:
    """The losses, the trained adapters, and the keys that our own run of this configuration would write (without alpha)."""
    config = settled_for(recording.config, base)
    layers = adaptable(base)
    targets = [target for target in layers if is_trained(config, target.name, target.part)]
    expected = {f"{target.name}.lora_{half}.weight" for target in targets for half in ("down", "up")}
    adapters = adapters_from_state(layers, fitted(layers, recording.group("init/")), base.device)
    precision = choose_precision(config.precision, base.device)
    count, together = len(recording.losses), config.optimizer.gradient_accumulation_steps
    updater = Updater(adapters, config.optimizer, config.run.steps or -(-count // together), precision, config.adapter)
    texts = Texts(base, config.text, precision)
    losses: list[float] = []
    with (
        _read_as_recorded(base),
        attached(adapters, merged_adapters(config, base)),
        forwards_replaced(_checkpointed(config, base)),
    ):
        for start in range(0, count, together):
            batches = [_inputs(recording, config, base, texts, step) for step in range(start, min(start + together, count))]
            losses += training_step(base, batches, config.objective, config.text.clip_skip, precision, updater)
    return losses, adapters, expected


@contextmanager
def _read_as_recorded(base: BaseModel) -> Iterator[None]:
    """Context manager under which captions are read as sd-scripts reads them. A run reads them as the webui does."""
    readers = base.text_encoders
    base.text_encoders = tuple(reader.as_sd_scripts() for reader in readers)
    try:
        yield
    finally:
        base.text_encoders = readers


def _checkpointed(config: TrainConfig, base: BaseModel) -> dict[nn.Module, Forward]:
    on = choose_checkpointing(config.precision.gradient_checkpointing, base.device, base.family).on
    return checkpointed_forwards(networks(base)) if on else {}


def _inputs(recording: Recording, config: Settled, base: BaseModel, texts: Texts, step: int) -> StepInputs:
    tensors = {key: value.to(base.device) for key, value in recording.group(f"step{step}/").items()}
    captions = recording.captions[step]
    read = texts.tokens(captions) if config.optimizer.text_encoder_lr > 0 else texts.context(captions)
    timesteps, process = tensors["timesteps"], noise_schedule(config.objective, base.noise_process)
    velocity = config.objective.v_parameterization
    target = process.target(tensors["latents"], tensors["noise"], timesteps, velocity=velocity)
    noisy = tensors["noisy_latents"]
    sizes = torch.cat([tensors[name] for name in _SIZES], dim=1) if recording.sdxl else None
    return StepInputs(noisy, target, timesteps, read, sizes)


def _joined(chosen: State, other: State) -> torch.Tensor:
    return torch.cat([chosen[key].float().flatten() for key in sorted(chosen) if key in other])


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of two tensors in double precision; 1 for two zeros."""
    a, b = a.double().flatten(), b.double().flatten()
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths else float(a.norm() == b.norm())
