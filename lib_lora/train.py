"""A run, top to bottom. START READING HERE.

Everything is checked, the model is borrowed, images become latents, adapters are trained, the model is given back and the
LoRA lies in its folder with its card. What happens between steps (files, states, samples) is in `output/between.py`.
`train()` yields events; whoever runs it decides what to do with them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from lib_lora.check import check
from lib_lora.config.groups import TrainConfig
from lib_lora.data.token_rules import cut_captions
from lib_lora.errors import HostChanged
from lib_lora.events import Chosen, Encoded, Event, Finished, Note, Phase, Planned, Saved, StepDone, Stop
from lib_lora.jobs.memory import give_caches_back, give_memory_back
from lib_lora.model.base import Host
from lib_lora.model.rates import with_rates
from lib_lora.output.between import Between
from lib_lora.output.leftovers import remove_leftovers
from lib_lora.output.patience import patiently
from lib_lora.output.result import Result
from lib_lora.plan import Plan
from lib_lora.training.loan import Loan
from lib_lora.training.pictures import Pictures
from lib_lora.training.precision import choose_precision
from lib_lora.training.resume import find_resumed
from lib_lora.training.session import Session
from lib_lora.training.step import DivergedError
from lib_lora.training.suited import suited
from lib_lora.training.told_weights import told_weights
from lib_lora.training.words import told_words


def train(config: TrainConfig, host: Host, stop: Stop) -> Iterator[Event]:
    """Train a LoRA on the model that `host` lends.

    Args:
        config: all settings.
        host: lends the model, and says where LoRAs go.
        stop: read once per step, from any thread.

    Raises:
        ConfigError: with every problem, before the model is touched.
        TrainLoraError: something went wrong later; the model is back as it was, and no part of a file was left behind.
    """
    started_at = time.time()
    plan = check(config, host)
    resumed = find_resumed(config, plan, host)
    yield Planned(plan)
    yield from map(Note, resumed.told if resumed else ())
    yield Phase("waiting for the model")
    path: Path | None = None
    last: StepDone | None = None
    with Loan(host, stop, lends=config.run.generate_while_training) as loan:
        base = loan.base
        remove_leftovers(host.lora_folder(), host.work_folder() / config.run.name)
        trained, told = suited(config, base)
        captions = [sample.caption for sample in plan.samples]
        yield from map(Chosen, [*told, *told_words(config, captions, base)])
        yield from map(Note, [*told_weights(config, base), *cut_captions(base.tokenizer, captions, trained.text)])
        precision = choose_precision(config.precision, base.device, next(base.unet.parameters()).dtype)
        pictures, encoded = Pictures(config, plan, base), 0
        for encoded in pictures.encode():
            yield Encoded(encoded, pictures.total)
            yield from loan.offer(needs_vae=True, learned=False)
            if stop.requested:
                break
        give_caches_back(base.device)  # what encoding took is no room for training
        if encoded == pictures.total and not stop.requested:
            session = Session(trained, plan, base, pictures, precision)
            result = Result(trained, plan, base, host, session, started_at)
            # a state holds the settings as they were given, and the rates that they came to
            between = Between(with_rates(config, base.family), plan, base, host, session, result)
            if resumed:
                between.go_on(resumed)
            yield from _choices(session)
            steps = _steps(config, plan, loan, session, between, stop, resumed.step if resumed else 0)
            last, diverged = yield from _followed(steps, between)
            if last is not None and (stop.keep or not stop.requested):
                path = yield from patiently(partial(result.write, "", last.step, last.epoch))
                yield Saved(path, last.step)
                yield from between.at_end(last)
                give_memory_back(base.device)
                yield Phase("making the card")
                yield from result.card(path, preview=True)
                yield from between.best()
                remove_leftovers(host.lora_folder(), host.work_folder() / config.run.name)  # newer states are there now
            elif last is not None and stop.leaves:
                yield between.leave(last)
            del session, result, between
            if diverged is not None:
                raise diverged
        del pictures
    yield Finished(path, last.step if last else 0)


def _steps(
    config: TrainConfig, plan: Plan, loan: Loan, session: Session, between: Between, stop: Stop, first: int
) -> Iterator[Event]:
    """Every step from `first` on, and what is due between them."""
    # what is encoded once is encoded by now; an inpainting model reads grey pictures as it meets their sizes
    needs_vae = loan.base.family.inpaints or not config.data.cache_latents
    if first == 0:
        yield from between.before()
    for batches in plan.updates(config.run.seed):
        if batches[0].step < first:
            continue
        if (yield from loan.offer(needs_vae=needs_vae)):
            session.renew()
        done = None
        while done is None:
            if stop.requested:
                return
            try:
                done = session.step(batches)
            except HostChanged:  # the checkpoint was unloaded in the middle of the step
                if not loan.lends:
                    raise
                session.undo()
                yield from loan.lend(needs_vae=needs_vae)
                session.renew()
        yield from map(Note, session.take_told())
        yield done
        yield from between.after(done, asked=stop.take_save_request())


def _followed(steps: Iterator[Event], between: Between) -> Generator[Event, None, tuple[StepDone | None, DivergedError | None]]:
    """All events of `steps`; returns the last good step, and why no further one followed where the loss is no number any more.

    Raises:
        HostChanged: the model is gone; the state was saved.
    """
    last: StepDone | None = None
    try:
        for event in steps:
            last = event if isinstance(event, StepDone) and math.isfinite(event.loss) else last
            yield event
    except DivergedError as error:  # the adapters are as before it
        return last, error
    except HostChanged as error:
        if last is None:
            raise
        yield from between.rescue(last, error)
    return last, None


def _choices(session: Session) -> Iterator[Chosen]:
    """What was decided for the user, and why."""
    if session.precision.reason:
        yield Chosen(f"Mixed precision: {session.precision.name}, since {session.precision.reason}.")
    if session.checkpointing.reason:
        state = "on" if session.checkpointing.on else "off"
        yield Chosen(f"Gradient checkpointing: {state}, since {session.checkpointing.reason}.")
