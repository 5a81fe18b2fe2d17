"""Between two steps: the run stands while it is paused, and does what is requested meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from lib_lora.events import Event, StepDone
from lib_lora.output.checkpointer import Checkpointer
from lib_lora.run_control import RunControl
from lib_lora.training.loan import Loan
from lib_lora.training.trainer import Trainer


def stood(
    done: StepDone | None, loan: Loan, trainer: Trainer, checkpointer: Checkpointer, control: RunControl, *, needs_vae: bool
) -> Iterator[Event]:
    """Stand while the run is paused, and lend the model to those who wait; save and draw what is requested meanwhile.

    `done` is the last step, None if there is none yet: then requests wait for it.
    """
    control.pauses_itself = True
    while True:
        control.served()
        if (yield from loan.offer(needs_vae=needs_vae, learned=done is not None)):
            trainer.renew()
        if not loan.lends:
            control.stand(serves=done is not None)
        if done is None or control.stop_requested or not control.has_requests:
            return
        save, samples = control.take_save_request(), control.take_sample_request()
        yield from checkpointer.meanwhile(done, asked=save, asked_samples=samples)
