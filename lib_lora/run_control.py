"""How a run is asked to end, to stand, or to save, from any thread."""

from __future__ import annotations

import threading


class RunControl:
    """What is asked of a run, from any thread: to end at the next step (the first request counts), to stand, or to save there."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._save = threading.Event()
        self._gate = threading.Event()  # cleared while the program wants the run to stand
        self._gate.set()
        self._go = threading.Event()  # cleared while a person holds the run
        self._go.set()
        self._keep = self._leave = False

    def request_save(self) -> None:
        """Ask for a file of the moment after the next step."""
        self._save.set()

    def take_save_request(self) -> bool:
        """Whether a file was asked for since this was called last."""
        asked = self._save.is_set()
        self._save.clear()
        return asked

    def request(self, *, keep: bool) -> None:
        """Ask for the end; with `keep` the LoRA as it is then gets saved."""
        if not self._asked.is_set():
            self._keep = keep
            self._asked.set()
        self._go.set()

    def request_leave(self) -> None:
        """The program ends: ask for the end, with the state to go on from and no LoRA."""
        if not self._asked.is_set():
            self._leave = True
        self.request(keep=False)
        self.open_gate()

    def hold(self) -> None:
        """Let the run stand after its step until `go_on`, or until its end is asked for."""
        if not self.requested:
            self._go.clear()

    def go_on(self) -> None:
        """Let a run that was held go on."""
        self._go.set()

    def shut_gate(self) -> None:
        """Let a run that has lent its model not take it again until `open_gate`."""
        self._gate.clear()

    def open_gate(self) -> None:
        """Let it take its model again."""
        self._gate.set()

    def wait_at_gate(self) -> None:
        """Returns when the gate is open."""
        self._gate.wait()

    @property
    def held(self) -> bool:
        return not self._go.is_set()

    def wait_while_held(self) -> None:
        """Returns when nobody holds the run."""
        self._go.wait()

    def wait_for_request(self, seconds: float) -> None:
        """Returns when the end is asked for, or after `seconds`."""
        self._asked.wait(seconds)

    @property
    def requested(self) -> bool:
        return self._asked.is_set()

    @property
    def keep(self) -> bool:
        return self._keep

    @property
    def leaves(self) -> bool:
        return self._leave
