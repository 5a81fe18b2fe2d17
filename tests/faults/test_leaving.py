"""Case 42: the program is asked to end during a run."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.files.lora_file import read
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from tests.models import shared_host

ROOT = Path(__file__).parents[2]
STEPS = 12
# as the webui: a handler of its own for Ctrl+C that ends at once, none for SIGTERM, and a main thread that waits
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from lib_lora.config.groups import build_config
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.hosts import webui_signals
from lib_lora.hosts.webui_signals import save_before_the_end
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from lib_lora.training.trainer import Trainer

webui_signals.LEAVE_S = float(os.environ.get("LEAVE_S", webui_signals.LEAVE_S))

torch.set_num_threads(1)
checkpoint, folder, pace, held = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "held"
step = Trainer.step
Trainer.step = lambda *args: (time.sleep(pace), step(*args))[1]
signal.signal(signal.SIGINT, lambda *_: os._exit(3))
queue = Queue(Runner(StandaloneHost(checkpoint, folder / "out")), Store(folder / "queue"))
for _ in range(3):
    save_before_the_end(queue)  # as by Reload UI
for line in sys.argv[5:]:
    queue.submit(build_config(json.loads(line)))
while True:
    told = queue.runner.job.progress if queue.runner.job else None
    if told and told.step == 3 and held:
        queue.runner.pause()
    print(told.step if told else 0, told.state if told else None, flush=True)
    time.sleep(0.05)
"""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(scope="module", autouse=True)
def imported() -> Iterator[None]:
    """What the program imports, once for all that are forked."""
    import diffusers.loaders.single_file_utils  # noqa: F401 - what loads a checkpoint
    import transformers.models.clip.modeling_clip  # noqa: F401 - the same

    from lib_lora.hosts import webui_signals  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Program:
    """The program in a process of its own: forked, or started `anew` with an interpreter of its own."""

    def __init__(
        self, checkpoint: Path, folder: Path, *jobs: TrainConfig, pace: float = 0.25, held: bool = False, anew: bool = False
    ) -> None:
        lines = [json.dumps(job.to_flat()) for job in jobs]
        arguments = [str(checkpoint), str(folder), str(pace), "held" if held else "", *lines]
        reader, writer = os.pipe()
        self._out = os.fdopen(reader)
        self._pid = os.fork()
        if not self._pid:
            _live(writer, arguments, anew)
        os.close(writer)
        self.said: list[str] = []

    def wait_for(self, wanted: Callable[[int, str], bool]) -> None:
        """Until step and state are so."""
        for line in self._out:
            self.said.append(line)
            words = line.split()
            if len(words) == 2 and words[0].isdigit() and wanted(int(words[0]), words[1]):
                return
            if words[1:] == ["failed"]:  # it would wait for ever
                break
        raise AssertionError("it ended:\n" + "".join(self.said[-30:]))

    def ends(self, number: int, *, again: bool = False) -> tuple[int, float]:
        """Its exit code after a signal, and the seconds that it took."""
        started = time.monotonic()
        os.kill(self._pid, number)
        if again:
            time.sleep(0.3)
            os.kill(self._pid, number)
        self.said.append(self._out.read())
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return code, time.monotonic() - started


def _live(writer: int, arguments: list[str], anew: bool) -> None:
    """A forked child becomes the program; it never returns."""
    try:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        if anew:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            os.execve(sys.executable, [sys.executable, "-c", PROGRAM, *arguments], environment)
        sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - for as long as it lives
        sys.argv = ["-c", *arguments]
        exec(compile(PROGRAM, "program", "exec"), {"__name__": "__main__"})
    except BaseException:  # noqa: BLE001 - a child never returns
        traceback.print_exc()
    finally:
        os._exit(1)


def reopened(checkpoint: Path, folder: Path) -> Queue:
    return Queue(Runner(shared_host(checkpoint, folder / "out")), Store(folder / "queue"))


@pytest.mark.case(42)
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 3), (signal.SIGHUP, -signal.SIGHUP)],
    ids=["SIGTERM", "SIGINT", "SIGHUP"],
)
@pytest.mark.parametrize("held", [False, True], ids=["running", "paused"])
def test_a_signal_saves_the_state_first(
    number: int,
    code: int,
    held: bool,
    shallow_checkpoint: Path,
    tmp_path: Path,
    photos: Path,
    quick: Any,
    figure: Callable[[str], None],
) -> None:
    """SIGTERM, Ctrl+C or a closed terminal while a training runs or is paused: its state is saved, without a look at the images, what waits stays, and it goes on bit for bit."""
    first, second = quick(steps=STEPS), quick(steps=STEPS, name="waits")
    # one of the six is started by an interpreter of its own, as a user starts it
    program = Program(shallow_checkpoint, tmp_path, first, second, held=held, anew=number == signal.SIGTERM and not held)
    program.wait_for(lambda step, state: step >= 3 and (state == "paused" or not held))
    photos.rename(tmp_path / "away")
    assert program.ends(number) == (code, pytest.approx(0, abs=10)), program.said[-3:]
    (tmp_path / "away").rename(photos)
    assert "saving the state of 'blob'." in "".join(program.said) and "not saved" not in "".join(program.said)
    assert not (tmp_path / "out" / "blob.safetensors").exists()

    queue = reopened(shallow_checkpoint, tmp_path)
    assert {entry.name: entry.state for entry in queue.entries} == {"blob": "interrupted", "waits": "waiting"}
    entry = next(entry for entry in queue.entries if entry.name == "blob")
    assert 3 <= entry.step < STEPS and queue.held
    queue.resume(entry.id)
    queue.release()
    deadline = time.monotonic() + 120
    while any(entry.state in {"running", "waiting"} for entry in queue.entries):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {entry.state for entry in queue.entries} == {"finished"}
    gone_on, whole = (read(tmp_path / "out" / f"{name}.safetensors")[0] for name in ("blob", "waits"))
    assert all(torch.equal(gone_on[key], whole[key]) for key in whole)
    figure(f"{signal.Signals(number).name}: the state of step {entry.step} was saved")


@pytest.mark.case(42)
def test_a_second_signal_ends_at_once(shallow_checkpoint: Path, tmp_path: Path, quick: Any) -> None:
    """Ctrl+C twice: the end is not waited for, and nothing half-written is left."""
    program = Program(shallow_checkpoint, tmp_path, quick(steps=STEPS), pace=4)
    program.wait_for(lambda step, _: step >= 1)
    code, seconds = program.ends(signal.SIGINT, again=True)
    assert code == 3 and seconds < 2.5, "it waited for the step"
    assert [entry.state for entry in reopened(shallow_checkpoint, tmp_path).entries] == ["interrupted"]


@pytest.mark.case(42)
def test_with_no_training_a_signal_is_what_it_was(shallow_checkpoint: Path, tmp_path: Path) -> None:
    """Where nothing runs, the signal does at once what it does without the extension."""
    for number, code in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 3)):
        program = Program(shallow_checkpoint, tmp_path)
        program.wait_for(lambda step, _: step == 0)
        assert program.ends(number)[0] == code and "saving" not in "".join(program.said)


@pytest.mark.case(42)
def test_a_state_that_is_not_saved_is_told(
    shallow_checkpoint: Path, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that takes longer than there is time: the program ends, and says that the state was not saved, and why."""
    monkeypatch.setenv("LEAVE_S", "0.2")
    program = Program(shallow_checkpoint, tmp_path, quick(steps=STEPS), pace=1.5)
    program.wait_for(lambda step, _: step >= 1)
    code, _ = program.ends(signal.SIGINT)
    told = "Train LoRA: The state of 'blob' after step 1 is not saved, and there is no older one (after 0.2 s the run was still in step 2)."
    assert code == 3 and told in "".join(program.said)
