"""docs/faults.md as `make faults` writes it."""

from __future__ import annotations

from pathlib import Path

from tools.faults.cases import CASES
from tools.faults.report import LANES, Outcome, read_outcomes, report, write_outcomes

CARD = "A Card, torch 9"


def row(number: int, text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {number} |"))


def test_a_row_says_what_ran_where(tmp_path: Path) -> None:
    cpu = [Outcome(1, "dev", "a", "passed", "It ends", ("3 times",), house=True), Outcome(2, "pins", "b", "passed", "It goes on")]
    gpu = [Outcome(1, "gpu", "a", "passed", "It ends"), Outcome(1, "gpu", "c", "passed", "On the card")]
    write_outcomes(tmp_path / "dev.json", cpu)
    write_outcomes(tmp_path / "gpu.json", gpu, CARD)
    outcomes, card = read_outcomes(tmp_path / f"{lane}.json" for lane in LANES)
    assert outcomes == [*cpu, *gpu] and card == CARD
    text = report(outcomes, card)
    assert f"on the standalone host on {CARD}." in text and len(text.splitlines()) == len(CASES) + 11
    assert row(1, text).endswith("| passed | Out of memory at the first step. It ends (3 times) [standalone host, a GPU]; On the card [a GPU]; house checked |")  # fmt: skip
    assert row(2, text).endswith("It goes on [the webui's exact versions]. On a GPU: not run |")
    assert row(4, text) == "| 4 | fails | A loss that is no number at step 10: not tested |"


def test_what_fails_on_a_gpu_fails(tmp_path: Path) -> None:
    outcomes = [Outcome(1, "dev", "a", "passed", "It ends"), Outcome(1, "gpu", "a", "failed", "It ends", why="no")]
    assert row(1, report(outcomes, CARD)).startswith("| 1 | fails |")
    assert "none yet" in report([], "")
