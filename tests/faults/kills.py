"""kill -9 of runs in children forked from one warm process, at any moment or at a chosen file operation."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_lora.config.groups import TrainConfig
from lib_lora.errors import ConfigError
from lib_lora.events import Finished, StateSaved, StepDone
from lib_lora.files.lora_file import read
from lib_lora.files.plain_values import StateError
from lib_lora.files.state_file import read_tensors, read_values
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config
from tests.house import assert_no_broken_states, assert_whole, contents
from tests.states import state_folder

STEPS = 3
LONG_AGO_S = 3600
SMALL = {"up_lr_weight": "zeros", "down_lr_weight": "zeros"}  # the middle block alone: little to train and to save
FLAT = {
    **SMALL, "train_layers": "cross-attention", "text_encoder_lr": 0, "rank": 1, "steps": STEPS, "save_every_n_steps": 1, "save_state": True,
    "save_last_n_steps": 1, "save_last_n_steps_state": 2, "overwrite": True, "ema_decay": 0.9,
}  # fmt: skip
Point = tuple[int, str]  # after which step, and what
FILES = {
    "open": 0, "os.rename": 0, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.chmod": 0, "shutil.copyfile": 0,
}  # fmt: skip
SAVING = ("write", "in the middle of a write", "fsync", "after fsync", "os.rename")
WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Seen:
    """All that can be compared of a run: its file, what each step told, the state after its last step, its samples."""

    tensors: dict[str, torch.Tensor]
    steps: list[tuple[float, tuple[float, ...]]]  # loss, learning rates
    state: dict[str, torch.Tensor]  # adapters, optimizer, moving average
    values: dict[str, Any]  # what of the state is no tensor: counters, schedule, loss scaler
    pictures: dict[str, bytes]


class Campaign:
    """One warm process, one reference run, and children that die."""

    def __init__(self, make_host: Callable[[Path], Any], photos: Path, folder: Path, **changes: object) -> None:
        self._make_host, self._photos, self._folder = make_host, photos, folder
        self._flat = {**FLAT, **changes}
        self._steps = int(str(self._flat["steps"]))
        started = time.monotonic()
        self.reference = self._run(self.place("reference"))
        self.seconds = time.monotonic() - started
        self.killed = self.resumed = 0

    def points(self) -> list[Point]:
        """Every operation on files of a run, in order."""
        place = self.place("counted")
        pid, _ = self._fork(place, kill_at=None)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return [tuple(point) for point in json.loads((place / "points.json").read_text())]

    def log(self) -> list[tuple[str, str, str]]:
        """What a run did with files below its folder: operation, path, second path."""
        self.points()
        place = self._folder / "counted"
        return [tuple(entry) for entry in json.loads((place / "log.json").read_text())]

    def kill_at_point(self, number: int) -> None:
        """A child dies at an operation; what is left must be whole, and is gone on with."""
        place = self.place("point")
        pid, pipe = self._fork(place, kill_at=number)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == -signal.SIGKILL, f"operation {number} was not reached ({code})"
        self._check(place, pipe)

    def kill_after_step(self, step: int) -> None:
        """A child dies when it tells of a step."""
        place = self.place("step")
        pid, pipe = self._fork(place, kill_at=None, kill_after=step)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        self._check(place, pipe)

    def kill_at_random(self, rng: random.Random) -> None:
        """A child dies at a random moment, wherever it is."""
        while True:
            place = self.place("moment")
            pid, pipe = self._fork(place, kill_at=None)
            time.sleep(rng.uniform(0, 1.1 * self.seconds))
            os.kill(pid, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
                self._check(place, pipe)
                return
            os.close(pipe)  # it was faster

    def check(self, place: Path, saved: int = 0) -> None:
        """Nothing unreadable under a final name; the run goes on from the newest state to the same end, bit for bit."""
        self.killed += 1
        host = self._make_host(place / "out")
        out, work = host.lora_folder(), host.work_folder()
        for path in contents(host):
            if not any(part.startswith(".") and part != work.name for part in path.relative_to(out).parts):
                assert path.suffix == ".bak" or assert_whole(path) is None
        for path in out.rglob("*"):
            os.utime(path, (time.time() - LONG_AGO_S,) * 2)
        assert_no_broken_states(work)
        self._assert_old_or_new(place)
        step = _newest_step(work)
        assert step >= saved, "the newest state is older than the last that was told"
        try:
            seen = self._run(place, **({"resume": "blob"} if step else {}))
        except ConfigError as error:  # it had made its last step
            assert "nothing is left to train" in str(error) and step == self._steps
            seen = self._seen(place, self._last_file(out), [])
        else:
            left = [path for path in out.rglob("*") if path.suffix in {".tmp", ".bak", ".gone", ".old"}]
            assert left == [], f"left by the run that was killed: {left}"
        self._assert_same(seen, step)
        self.resumed += 1
        shutil.rmtree(place)

    def _assert_same(self, seen: Seen, first: int) -> None:
        """A run from step `first` on is the reference's rest, to the last bit."""
        wanted = self.reference
        assert seen.steps == wanted.steps[first:], "losses or learning rates are others"
        for what, mine, theirs in (("LoRA", seen.tensors, wanted.tensors), ("state", seen.state, wanted.state)):
            assert mine.keys() == theirs.keys() and len(mine) > 0, what
            other = [key for key, value in mine.items() if not torch.equal(value, theirs[key])]
            assert other == [], f"the {what} is another: {other[:3]}"
        assert seen.values == wanted.values, "counters or schedule of the state are others"
        assert seen.pictures == wanted.pictures, "the samples are others"

    def _check(self, place: Path, pipe: int) -> None:
        saved = 0
        while select.select([pipe], [], [], 0)[0] and (byte := os.read(pipe, 1)):
            saved = byte[0]
        os.close(pipe)
        self.check(place, saved)

    def _assert_old_or_new(self, place: Path) -> None:
        """What had the name before is there, or the new one."""
        path = place / "out" / "blob.safetensors"
        if hashlib.sha256(path.read_bytes()).hexdigest() != (place / "old").read_text():
            assert all(torch.equal(value, self.reference.tensors[key]) for key, value in read(path)[0].items())

    def _last_file(self, out: Path) -> dict[str, torch.Tensor]:
        """The finished LoRA, or the one of the last step, where the run died between the two."""
        between = out / f"blob-step{self._steps:08d}.safetensors"
        tensors = read(out / "blob.safetensors")[0]
        same = all(torch.equal(value, self.reference.tensors[key]) for key, value in tensors.items())
        return tensors if same else read(between)[0]

    def place(self, name: str) -> Path:
        """A folder for a run, in which an older LoRA has its name already."""
        place = self._folder / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "out").mkdir(parents=True)
        if name != "reference":
            old = self._folder / "reference" / "out" / "blob-old"
            shutil.copy(old, place / "out" / "blob.safetensors")
            (place / "old").write_text(hashlib.sha256(old.read_bytes()).hexdigest())
        return place

    def config(self, place: Path, **changes: object) -> TrainConfig:
        """Settings of every run here."""
        return small_config(self._photos, place / "out", **{**self._flat, **changes})

    def _run(self, place: Path, **changes: object) -> Seen:
        steps, path = [], None
        for event in train(self.config(place, **changes), self._make_host(place / "out"), RunControl()):
            steps += [(event.loss, event.learning_rates)] if isinstance(event, StepDone) else []
            path = event.path if isinstance(event, Finished) else path
        assert path is not None
        if place.name == "reference":  # an older one: of the last step, before the moving average is told
            shutil.copy(path.with_name(f"blob-step{self._steps:08d}.safetensors"), path.with_name("blob-old"))
        return self._seen(place, read(path)[0], steps)

    def _seen(self, place: Path, tensors: dict[str, torch.Tensor], steps: list[tuple[float, tuple[float, ...]]]) -> Seen:
        work = self._make_host(place / "out").work_folder()
        folder = state_folder("blob", work)
        values = read_values(folder)
        pictures = {path.name: Image.open(path).tobytes() for path in work.rglob("*.png")}
        kept = {key: values[key] for key in ("position", "steps", "data", "model", "precision", "state")}
        return Seen(tensors, steps, read_tensors(folder, values), kept, pictures)

    def _fork(self, place: Path, kill_at: int | None, kill_after: int = 0) -> tuple[int, int]:
        """A child that trains; it tells each state that it saved through the pipe."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            return pid, reader
        code = 3
        try:
            self._live(place, writer, kill_at, kill_after)
            code = 0
        except BaseException:  # noqa: BLE001 - a child never returns
            traceback.print_exc()
        finally:
            os._exit(code)

    def _live(self, place: Path, writer: int, kill_at: int | None, kill_after: int) -> None:
        watch = Watch(place, kill_at)
        for event in train(self.config(place), self._make_host(place / "out"), RunControl()):
            if isinstance(event, StepDone):
                watch.step = event.step
                if event.step == kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(event, StateSaved):
                os.write(writer, bytes([event.step]))
        watch.off = True
        (place / "points.json").write_text(json.dumps(watch.points))
        (place / "log.json").write_text(json.dumps(watch.log))


class Watch:
    """Sees every operation on files below a folder, and dies at one of them. For a child alone: it cannot be taken off."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self._folder, self._kill_at = str(folder), kill_at
        self.points: list[Point] = []
        self.log: list[tuple[str, str, str]] = []  # what was done with which paths, in order
        self.step, self.off = 0, False
        self._rng = random.Random(kill_at)
        self._fsync, self._fdopen = os.fsync, os.fdopen
        sys.addaudithook(self._audit)
        os.fsync, os.fdopen = self._synced, self._opened

    def point(self, what: str) -> None:
        """An operation is about to be made."""
        if self.off:
            return
        if len(self.points) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.points.append((self.step, what))

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in FILES or not isinstance(args[0], (str, os.PathLike)) or self._folder not in str(args[0]):
            return
        if event == "open" and not (args[2] or 0) & WRITES:
            return
        self.log.append((event, str(args[0]), str(args[1]) if event == "os.rename" else ""))
        self.point(f"{event} {Path(args[0]).name}")

    def _synced(self, handle: int) -> None:
        self.point("fsync")
        self._fsync(handle)
        self.log.append(("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()), ""))
        self.point("after fsync")

    def _opened(self, handle: int, *args: Any, **kwargs: Any) -> Any:
        self.log.append(("write", str(Path(f"/proc/self/fd/{handle}").readlink()), ""))
        return _Written(self._fdopen(handle, *args, **kwargs), self, self._rng)


class _Written:
    """A file whose writes can be cut off at any byte."""

    def __init__(self, file: Any, watch: Watch, rng: random.Random) -> None:
        self._file, self._watch, self._rng = file, watch, rng

    def write(self, content: bytes) -> int:
        cut = self._rng.randrange(len(content) + 1)
        self._watch.point("write")
        self._file.write(content[:cut])
        self._file.flush()
        self._watch.point("in the middle of a write")
        self._file.write(content[cut:])
        return len(content)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _newest_step(work: Path) -> int:
    """How far the newest state that can be gone on from is; 0 where there is none."""
    try:
        return int(read_values(state_folder("blob", work))["position"]["step"])
    except StateError:
        return 0
