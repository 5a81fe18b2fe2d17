"""The model of a run: borrowed for the run, and lent out between two steps if someone waits for it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from types import TracebackType

from lib_lora.errors import ModelAway
from lib_lora.events import Event, Lent, Phase
from lib_lora.host import Host
from lib_lora.model.base import BaseModel
from lib_lora.run_control import RunControl

LENT = "lent to the webui, which needed the model"
PAUSED = "paused; the webui has the model"
LOOK_AGAIN_S = 1.0  # between two checks whether a lent model is back


class Loan:
    """Context manager that borrows the model. `base` is the same object for the whole run, however often it is lent out."""

    base: BaseModel

    def __init__(self, host: Host, control: RunControl, *, lends: bool) -> None:
        self._host, self._control, self.lends = host, control, lends
        self._held = ExitStack()

    def __enter__(self) -> Loan:
        self.base = self._held.enter_context(self._host.borrow_model())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.__exit__(kind, error, trace)

    def offer(self, *, needs_vae: bool, learned: bool = True) -> Generator[Event, None, bool]:
        """Lend the model out if someone waits for it or the run is paused; returns whether it was lent.

        It is borrowed again afterwards, unless a stop is requested and nothing is saved. A run that stops does not lend it. A
        paused one that has learned something also borrows it for what is asked meanwhile.

        Args:
            needs_vae: images are encoded afterwards.
            learned: there is something to save.
        """
        if not self.lends or self._control.stop_requested or not (self._control.paused or self._host.someone_waits()):
            return False
        yield from self.lend(needs_vae=needs_vae, learned=learned)
        return True

    def lend(self, *, needs_vae: bool, learned: bool = True) -> Generator[Event, None, None]:
        """Give the model back, and borrow it again once nobody waits for it and it is available and unchanged."""
        self._held.close()
        with self._control.still():
            yield from self._until_back(needs_vae=needs_vae, learned=learned)

    def _until_back(self, *, needs_vae: bool, learned: bool) -> Generator[Event, None, None]:
        told = PAUSED if self._control.paused else LENT
        yield Lent(told)
        while True:
            if self._control.paused and not (learned and self._control.has_requests):
                self._control.stand(serves=learned)
                told = LENT
                yield Lent(told)
            self._control.stand(paused=False)
            stops, keeps = self._control.stop_requested, self._control.keeps and learned
            if stops and not keeps:
                return
            try:
                self._held.enter_context(self._host.borrow_again(self.base, needs_vae=needs_vae, insist=stops))
            except ModelAway as away:
                if stops:
                    raise
                if told != f"waiting: {away}":
                    told = f"waiting: {away}"
                    yield Lent(told)
                self._control.wait_for_stop(LOOK_AGAIN_S)
                continue
            yield Phase("training")
            return
