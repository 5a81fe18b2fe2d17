"""What is due at a step, against tables of sd-scripts' rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_lora.config.groups import build_config
from lib_lora.events import Encoded, Event, HeldOut, Left, Note, Phase, Planned, Saved, SavedBetween, StateSaved, StepDone
from lib_lora.plan import Plan
from lib_lora.training.cadence import RECORD_EVERY_S, due_saves, record_due, samples_due, save_epochs


def plan(steps_per_epoch: int, steps: int) -> Plan:
    return Plan((), (), (), {}, 1, 1, steps_per_epoch, steps_per_epoch, -(-steps // steps_per_epoch), steps, "")


def endings(per_epoch: int, steps: int, **run: object) -> dict[int, list[str]]:
    config = build_config(run).run
    found = {step: [save.ending for save in due_saves(config, plan(per_epoch, steps), step)] for step in range(1, steps + 1)}
    return {step: names for step, names in found.items() if names}


def test_epochs_are_saved_but_the_last() -> None:
    assert endings(3, 9, save_every_n_epochs=1) == {3: ["-000001"], 6: ["-000002"]}
    assert endings(3, 12, save_every_n_epochs=2) == {6: ["-000002"]}
    assert endings(3, 8, save_every_n_epochs=1) == {3: ["-000001"], 6: ["-000002"]}  # the third is cut short, and the last
    assert endings(3, 9) == {}


def test_steps_are_saved_also_at_the_end() -> None:
    assert endings(3, 8, save_every_n_steps=4) == {4: ["-step00000004"], 8: ["-step00000008"]}
    assert endings(2, 4, save_every_n_steps=2, save_every_n_epochs=1) == {2: ["-step00000002", "-000001"], 4: ["-step00000004"]}


@pytest.mark.parametrize(("epochs", "ratio", "every"), [(10, 3, 3), (10, 20, 1), (10, 1, 10), (7, 2, 3), (10, 0, 0)])
def test_ratio(epochs: int, ratio: int, every: int) -> None:
    assert save_epochs(build_config({"save_n_epoch_ratio": ratio}).run, epochs) == every


def test_asking_saves_now_and_once() -> None:
    config = build_config({"save_every_n_steps": 5}).run
    assert [save.ending for save in due_saves(config, plan(3, 9), 4, asked=True)] == ["-step00000004"]
    assert [save.ending for save in due_saves(config, plan(3, 9), 5, asked=True)] == ["-step00000005"]


def test_epochs_done_are_counted_as_sd_scripts_does() -> None:
    config = build_config({"save_every_n_steps": 1, "save_every_n_epochs": 1}).run
    found = [[save.epochs_done for save in due_saves(config, plan(2, 6), step)] for step in range(1, 5)]
    assert found == [[0], [0, 1], [1], [1, 2]]


# what sd-scripts' get_remove_epoch_no and get_remove_step_no answer; 0 is no file
@pytest.mark.parametrize(
    ("every", "kept", "removed"),
    [(1, 2, [0, 0, 1, 2, 3, 4, 5, 6, 7]), (2, 1, [0, 2, 4, 6]), (3, 2, [0, 0, 3])],
)
def test_which_epochs_go(every: int, kept: int, removed: list[int]) -> None:
    config = build_config({"save_every_n_epochs": every, "save_last_n_epochs": kept, "save_last_n_epochs_state": kept + 1}).run
    saves = [due_saves(config, plan(1, 100), epoch)[0] for epoch in range(every, 10, every)]
    assert [save.old for save in saves] == [f"-{old:06d}" if old else None for old in removed]
    assert [save.old_state for save in saves] == [f"-{old - every:06d}" if old > every else None for old in removed]


@pytest.mark.parametrize(
    ("every", "kept", "removed"),
    [
        (10, 30, [0, 0, 0, 0, 10, 20, 30]),
        (10, 5, [0, 10, 20, 30, 40, 50]),
        (7, 20, [0, 0, 0, 7, 14, 21, 28]),
        (500, 500, [0, 0, 500, 1000, 1500, 2000, 2500]),
    ],
)
def test_which_steps_go(every: int, kept: int, removed: list[int]) -> None:
    config = build_config({"save_every_n_steps": every, "save_last_n_steps": kept}).run
    saves = [due_saves(config, plan(10**6, 10**6), every * n)[0] for n in range(1, len(removed) + 1)]
    wanted = [f"-step{old:08d}" if old else None for old in removed]
    assert [save.old for save in saves] == wanted and [save.old_state for save in saves] == wanted
    state = build_config({"save_every_n_steps": every, "save_last_n_steps": kept, "save_last_n_steps_state": 10**6}).run
    assert due_saves(state, plan(10**6, 10**6), every * len(removed))[0].old_state is None


def test_samples() -> None:
    def due(per_epoch: int, steps: int, **run: object) -> list[int]:
        config = build_config(run).run
        return [step for step in range(steps + 1) if samples_due(config, plan(per_epoch, steps), step)]

    assert due(3, 8) == []
    assert due(3, 8, sample_at_first=True) == [0]
    assert due(3, 8, sample_every_n_steps=4) == [4, 8]
    assert due(3, 8, sample_every_n_epochs=1) == [3, 6, 8]  # the end of the run ends its epoch
    assert due(3, 8, sample_every_n_epochs=2) == [6]
    assert due(3, 12, sample_every_n_epochs=2, sample_every_n_steps=6) == [6, 12]


def test_a_job_is_written_down_with_its_files_and_now_and_then_with_its_steps() -> None:
    """Whatever else is told is no reason: a list that many programs read is not written at every event."""
    files: list[Event] = [Planned(plan(1, 1)), StateSaved(Path("a"), 1), Saved(Path("a"), 1), SavedBetween(Path("a"), 1)]
    others: list[Event] = [Phase("a"), Encoded(1, 1), HeldOut(1, 0.5), Note("A."), Left(())]
    assert all(record_due(event, 0.0) for event in files) and not any(record_due(event, 1e9) for event in others)
    step = StepDone(1, 2, 1, 0.5, ())
    assert [record_due(step, seconds) for seconds in (0.0, RECORD_EVERY_S - 0.1, RECORD_EVERY_S)] == [False, False, True]
