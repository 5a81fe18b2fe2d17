"""A run, top to bottom. START READING HERE.

Everything is checked, the model is borrowed, images become latents, adapters are trained, the model is given back and the
LoRA lies in its folder with its card. `train()` yields events; whoever runs it decides what to do with them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from lib_lora.check import check
from lib_lora.config.arguments import parse_arguments
from lib_lora.config.groups import TrainConfig
from lib_lora.config.optimizers import optimizer_spec
from lib_lora.data.caption_rules import Moment, shown_caption
from lib_lora.data.sizes import Size
from lib_lora.errors import TrainLoraError
from lib_lora.events import Chosen, Encoded, Event, Finished, HeldOut, Note, Phase, Planned, Saved, StepDone, Stop
from lib_lora.model.adapter import state_dict
from lib_lora.model.base import BaseModel, Host
from lib_lora.output.card import write_card, write_preview
from lib_lora.output.lora_file import serialise
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.output.publish import publish
from lib_lora.plan import Plan
from lib_lora.sample import Request, sample
from lib_lora.training.heldout import is_due
from lib_lora.training.pictures import Pictures
from lib_lora.training.precision import FILE_DTYPES, choose_precision
from lib_lora.training.session import Session

LARGEST_PREVIEW_PX = 768


def train(config: TrainConfig, host: Host, stop: Stop) -> Iterator[Event]:
    """Train a LoRA on the model that `host` lends.

    Args:
        config: all settings.
        host: lends the model, and says where LoRAs go.
        stop: read once per step, from any thread.

    Raises:
        ConfigError: with every problem, before the model is touched.
        TrainLoraError: something went wrong later; the model is back as it was, and no file was left behind.
    """
    started_at = time.time()
    plan = check(config, host)
    yield Planned(plan)
    yield Phase("waiting for the model")
    path, last = None, None
    with host.borrow_model() as base:
        precision = choose_precision(config.precision, base.device, next(base.unet.parameters()).dtype)
        pictures, encoded = Pictures(config, plan, base), 0
        for encoded in pictures.encode():
            yield Encoded(encoded, pictures.total)
            if stop.requested:
                break
        if encoded == pictures.total:
            session = Session(config, plan, base, pictures, precision)
            yield from _choices(session)
            for event in _steps(config, plan, session, stop):
                last = event if isinstance(event, StepDone) else last
                yield event
            if last is not None and (stop.keep or not stop.requested):
                facts = RunFacts(
                    started_at, last.step, last.epoch, precision, _optimizer_text(config, session), session.checkpointing.on
                )
                path = publish(config, host, _content(config, plan, base, host, session, facts))
                yield Saved(path, last.step)
                yield Phase("making the card")
                yield from _card(config, plan, base, host, session, path)
            del session
        del pictures
    yield Finished(path, last.step if last else 0)


def _steps(config: TrainConfig, plan: Plan, session: Session, stop: Stop) -> Iterator[StepDone | HeldOut]:
    for batches in plan.updates(config.run.seed):
        if stop.requested:
            return
        done = session.step(batches)
        yield done
        if is_due(config.data, plan, done.step):
            yield HeldOut(done.step, session.heldout_loss())


def _choices(session: Session) -> Iterator[Chosen]:
    """What was decided for the user, and why."""
    if session.precision.reason:
        yield Chosen(f"Mixed precision: {session.precision.name}, since {session.precision.reason}.")
    if session.checkpointing.reason:
        yield Chosen(
            f"Gradient checkpointing: {'on' if session.checkpointing.on else 'off'}, since {session.checkpointing.reason}."
        )


def _content(config: TrainConfig, plan: Plan, base: BaseModel, host: Host, session: Session, facts: RunFacts) -> bytes:
    """The bytes of the LoRA file."""
    metadata = file_metadata(config, plan, base.info(), facts, host.software())
    with session.result():
        state = state_dict(session.pairs)
    return serialise(state, FILE_DTYPES[config.precision.save_precision], metadata)


def _card(config: TrainConfig, plan: Plan, base: BaseModel, host: Host, session: Session, path: Path) -> Iterator[Note]:
    """What stands beside the LoRA. The LoRA is saved: whatever fails here is told, and costs nothing else."""
    try:
        write_card(path, activation_text=config.text.trigger, sd_version="SD1", preferred_weight=1.0)
        if config.run.preview_steps:
            with session.result():
                write_preview(path, sample(base, _preview_request(config, plan), session.precision))
        host.announce(path)
    except (OSError, RuntimeError, TrainLoraError) as error:
        yield Note(f"The LoRA is saved, but not all of its card ({type(error).__name__}: {error}).")


def _preview_request(config: TrainConfig, plan: Plan) -> Request:
    """The trigger word alone, or the first caption where there is none."""
    side = min(config.data.resolution, LARGEST_PREVIEW_PX)
    still = dataclasses.replace(
        config.text,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0.0,
    )
    prompt = config.text.trigger or shown_caption(still, plan.samples[0].caption, Moment(0, 1, 0, 0), config.run.seed)
    size, steps = Size(side, side), config.run.preview_steps
    return Request(prompt, size, steps, config.run.seed, clip_skip=config.text.clip_skip, objective=config.objective)


def _optimizer_text(config: TrainConfig, session: Session) -> str:
    """`module.Class(key=value,…)` with the arguments that were given, as sd-scripts writes ss_optimizer."""
    cls = type(session.updater.optimizer)
    arguments = {**optimizer_spec(config.optimizer.optimizer).defaults, **parse_arguments(config.optimizer.optimizer_args)}
    given = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{cls.__module__}.{cls.__name__}" + (f"({given})" if given else "")
