"""Files of version 0.1.0 are still read: its states, LoRAs, queue, settings files and arguments.

`tests/data/v010` was written by 0.1.0 itself (`tests/record_v010.py`). Its paths are relative to the folder of its copy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.cli import _parser
from lib_lora.cli_options import add_options, config_from
from lib_lora.config.groups import build_config
from lib_lora.config.presets import PRESETS
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.events import Finished, StepDone
from lib_lora.files.lora_file import read
from lib_lora.jobs.history import settings_to_repeat
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_listing import details, listing
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from lib_lora.kohya.importing import import_file
from lib_lora.output.inspect import describe
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.continue_settings import continue_settings

RECORDED = Path(__file__).parent / "data" / "v010"
TOLD: dict[str, Any] = json.loads((RECORDED / "told.json").read_text(encoding="utf-8"))
PACKAGES = {"lokr": "lion_pytorch", "dora": "prodigyopt"}  # optimizers that the pins lane does not have
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its files, as the current folder."""
    shutil.copytree(RECORDED, tmp_path / "v010")
    monkeypatch.chdir(tmp_path / "v010")
    return Path()


@pytest.fixture
def host(disk: Path, mini_checkpoint: Path) -> Any:
    """The host of the command line if diffusers is installed, else ldm's modules as in a webui."""
    if importlib.util.find_spec("diffusers"):
        from lib_lora.hosts.standalone import StandaloneHost

        return StandaloneHost(mini_checkpoint, disk / "out")
    from tools.bench.ours import LdmHost

    return LdmHost(mini_checkpoint, disk / "out")


def deviation(found: Tensors, recorded: Tensors, start: Tensors) -> float:
    """How far `found` is from `recorded`, as a part of the way that `recorded` went from `start`, over all tensors."""
    assert found.keys() == recorded.keys() == start.keys()
    moved = torch.cat([(recorded[key] - start[key]).flatten() for key in recorded])
    apart = torch.cat([(found[key] - recorded[key]).flatten() for key in recorded])
    return float(apart.norm() / moved.norm())


def full(differences: dict[str, Any]) -> dict[str, Any]:
    """A configuration of 0.1.0, all options."""
    return {**TOLD["defaults"], **differences}


def as_it_was(flat: dict[str, Any]) -> dict[str, Any]:
    """A configuration of today, as JSON, without options that 0.1.0 did not have."""
    return {key: value for key, value in json.loads(json.dumps(flat)).items() if key in TOLD["defaults"]}


@pytest.mark.parametrize("name", TOLD["runs"])
def test_a_run_goes_on_from_a_state_to_the_same_lora(name: str, host: Any, disk: Path) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    told, losses = TOLD["runs"][name], []
    settings = {**told["settings"], "name": "again", "resume": f"{name}-step00000003-state"}
    for event in train(build_config(settings), host, RunControl()):
        if isinstance(event, StepDone):
            losses.append(event.loss)
    files = ("again", name, f"{name}-step00000003")
    found, recorded, start = (read(disk / "out" / f"{file}.safetensors")[0] for file in files)
    assert losses == pytest.approx(told["losses"][3:], rel=1e-5)
    assert deviation(found, recorded, start) < 1e-3


def test_a_finished_run_has_nothing_left_and_goes_on_with_more_steps(host: Any) -> None:
    settings = {**TOLD["runs"]["adamw"]["settings"], "name": "again", "resume": "adamw-state"}
    with pytest.raises(ConfigError, match="nothing is left to train"):
        list(train(build_config(settings), host, RunControl()))
    events = list(train(build_config({**settings, "steps": 8}), host, RunControl()))
    assert [event.step for event in events if isinstance(event, StepDone)] == [7, 8]


def test_a_state_of_other_settings_or_images_is_still_refused(host: Any, disk: Path) -> None:
    settings = {**TOLD["runs"]["adamw"]["settings"], "name": "again", "resume": "adamw-step00000003-state"}
    with pytest.raises(ConfigError, match=r"Seed \(seed\)|seed"):
        list(train(build_config({**settings, "seed": 8}), host, RunControl()))
    (disk / "photos" / "3_blob" / "0.txt").write_text("another caption")
    with pytest.raises(ConfigError, match="other images or captions"):
        list(train(build_config(settings), host, RunControl()))


@pytest.mark.parametrize("name", TOLD["runs"])
def test_a_lora_is_described_and_trained_again(name: str, disk: Path) -> None:
    told, path = TOLD["runs"][name], disk / "out" / f"{name}.safetensors"
    described = {key: value for key, value in describe(path).items() if key in told["inspect"]}
    norms = {key: pytest.approx(value, rel=1e-6) for key, value in told["inspect"].items() if key.startswith("norm_")}
    assert described == {**told["inspect"], **norms}
    if told["again"] is None:
        with pytest.raises(LoraFileError):
            continue_settings(path)
    else:
        assert dict(continue_settings(path).settings) == told["again"]


def test_a_run_goes_on_from_a_lora(host: Any) -> None:
    settings = {**TOLD["runs"]["adamw"]["settings"], **TOLD["runs"]["adamw"]["again"], "name": "again", "steps": 1}
    assert isinstance(list(train(build_config(settings), host, RunControl()))[-1], Finished)


class Jobs:
    """The queue after a start of the program."""

    def __init__(self, host: Any, disk: Path) -> None:
        self.queue = Queue(Runner(host), Store(disk / "out/.train-lora/queue", disk / "uploads"))

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.queue.entries if entry.name == name)

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 300
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert condition()


def test_the_queue_is_listed(host: Any, disk: Path) -> None:
    """What ran when the program ended is interrupted; all else is as it was."""
    jobs = Jobs(host, disk)
    after = {"running": "interrupted"}
    expected = {name: (after.get(state, state), step) for name, state, step in TOLD["queue"]["entries"]}
    assert {entry.name: (entry.state, entry.step) for entry in jobs.queue.entries} == expected
    assert [entry.name for entry in jobs.queue.entries if entry.state == "waiting"] == ["dropped", "first"]
    assert jobs.queue.held and not jobs.queue.trouble
    rows = {row["name"]: row for row in listing(jobs.queue)["jobs"]}
    assert {name for name, row in rows.items() if row["can_resume"]} == {"running", "stopped"}
    assert rows["finished"]["saved"] == "finished" and "lost" in rows["failed"]["problems"][0]
    for entry in jobs.queue.entries:
        assert details(entry)["newest_state"] == (Path(entry.state_folder).name if entry.state_folder else None)
        assert as_it_was(build_config(entry.settings).to_flat()) == full(TOLD["queue"]["configurations"][entry.name])
        repeated = settings_to_repeat(entry, disk / "out", from_state=entry.name == "stopped")
        assert {**repeated, "name": entry.name, "resume": ""} == {**entry.settings, "resume": ""}
        assert repeated["resume"] == ("stopped-step00000002-state" if entry.name == "stopped" else "")


def test_waiting_and_interrupted_jobs_run_to_their_ends(host: Any, disk: Path) -> None:
    """Those that waited run in their order; the interrupted one comes to the LoRA that 0.1.0 came to without a break."""
    jobs = Jobs(host, disk)
    jobs.queue.resume(jobs.entry("running").id)
    jobs.queue.release()
    jobs.wait(lambda: all(entry.over for entry in jobs.queue.entries))
    ended = {entry.name: entry for entry in jobs.queue.entries if entry.state == "finished"}
    assert set(ended) == {"finished", "running", "dropped", "first"}
    assert ended["running"].started < ended["dropped"].started < ended["first"].started
    assert ended["running"].curve == pytest.approx(TOLD["queue"]["losses"][4:], rel=1e-5)
    found, recorded = (read(disk / folder / "running.safetensors")[0] for folder in ("out", "after"))
    assert all(torch.allclose(found[key], recorded[key], rtol=1e-3, atol=1e-5) for key in recorded)
    jobs.queue.remove(ended["dropped"].id)
    assert not (disk / "out/.train-lora/queue" / ended["dropped"].id).exists() and (disk / "out/dropped.safetensors").exists()


@pytest.mark.parametrize("name", TOLD["files"])
def test_a_file_of_settings_gives_the_same_configuration(name: str, disk: Path) -> None:
    told, found = TOLD["files"][name], import_file(disk / "settings" / name, follow=False)
    assert as_it_was(found.config().to_flat()) == full(told["configuration"])
    verdicts = {verdict: sorted(said.key for said in getattr(found, verdict)) for verdict in ("not_supported", "unknown", "used")}
    assert verdicts == {verdict: told[verdict] for verdict in verdicts}


@pytest.mark.parametrize("name", TOLD["arguments"])
def test_arguments_give_the_same_configuration(name: str, disk: Path) -> None:
    told, parser = TOLD["arguments"][name], argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser)
    assert as_it_was(config_from(parser.parse_args(told["arguments"])).to_flat()) == full(told["configuration"])


def test_commands_and_their_arguments_are_all_there() -> None:
    assert {name: set(flags) - arguments(name) for name, flags in TOLD["commands"].items()} == dict.fromkeys(
        TOLD["commands"], set()
    )


def arguments(command: str) -> set[str]:
    """Flags, and names of arguments without."""
    (found,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {text for action in found.choices[command]._actions for text in action.option_strings or [action.dest]}


def test_presets_are_as_they_were() -> None:
    assert as_it_was(build_config({}).to_flat()) == TOLD["defaults"]
    now = {name: as_it_was(build_config(PRESETS[name].settings()).to_flat()) for name in TOLD["presets"]}
    assert now == {name: full(differences) for name, differences in TOLD["presets"].items()}
