"""The outcomes of each case as `docs/faults.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.faults.cases import CASES, Case

Result = Literal["passed", "failed", "skipped", "known"]  # known: an expected failure
LANES = {"dev": "standalone host", "pins": "the webui's exact versions", "e2e": "real webui", "gpu": "a GPU"}
HEAD = """# Fault campaign

Written by `make faults` from the outcomes of its tests; every test that breaks something on purpose names its case.
`passed`: all tests of the case passed. `fails`: what is not as the case wants it. `GPU`, `Windows`: nothing but that can show it.
Behind each line stands where it ran: on the standalone host, under the webui's exact versions on ldm's classes, in a real webui;
*a GPU*: on the standalone host on {card}. Where a case is to be repeated on one, and was not, it says so.
*House checked*: afterwards the host draws the same picture as before, every tensor and hook of the model is as before, no file
that is broken or temporary is left, the lock is free, and what was told were single sentences.

| case | status | what was done |
|---|---|---|
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test for one case. `figures`: what it measured; `house`: whether the five criteria were checked."""

    case: int
    lane: str
    test: str
    result: Result
    told: str
    figures: tuple[str, ...] = ()
    house: bool = False
    why: str = ""


def write_outcomes(path: Path, outcomes: Sequence[Outcome], card: str = "") -> None:
    """Write the outcomes of one lane, and the GPU it ran on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"card": card, "outcomes": [vars(outcome) for outcome in outcomes]}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_outcomes(paths: Iterable[Path]) -> tuple[list[Outcome], str]:
    """The outcomes of the lanes whose files exist, and the GPU of the lane that has one."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    outcomes = [Outcome(**{**entry, "figures": tuple(entry["figures"])}) for lane in found for entry in lane["outcomes"]]
    return outcomes, next((lane["card"] for lane in found if lane["card"]), "")


def report(outcomes: Iterable[Outcome], card: str) -> str:
    """The document. `card`: the GPU of the lane `gpu`; empty if it never ran."""
    by_case: dict[int, list[Outcome]] = {case.number: [] for case in CASES}
    for outcome in outcomes:
        by_case[outcome.case].append(outcome)
    return HEAD.replace("{card}", card or "none yet") + "".join(_row(case, by_case[case.number]) for case in CASES)


def status(case: Case, outcomes: Sequence[Outcome]) -> str:
    """The state of a case in one word."""
    ran = [outcome for outcome in outcomes if outcome.result != "skipped"]
    if any(outcome.result != "passed" for outcome in ran):
        return "fails"
    return case.needs or ("passed" if ran else "fails")


def _row(case: Case, outcomes: Sequence[Outcome]) -> str:
    ran = [outcome for outcome in outcomes if outcome.result != "skipped"]
    parts = [f"{case.fault}: not tested"] if not ran else [f"{case.fault}. {_told(ran)}"]
    if case.gpu and not any(outcome.lane == "gpu" for outcome in ran):
        parts.append("On a GPU: not run")
    text = ". ".join(parts).replace("|", "\\|").replace("\n", " ")
    return f"| {case.number} | {status(case, outcomes)} | {text[0].upper()}{text[1:]} |\n"


def _told(outcomes: Sequence[Outcome]) -> str:
    """Each test once, whatever its parameters, with the lanes it ran in."""
    by_text: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_text.setdefault(outcome.told, []).append(outcome)
    parts = []
    for told, group in by_text.items():
        figures = list(dict.fromkeys(figure for outcome in group for figure in outcome.figures))
        lanes = [name for lane, name in LANES.items() if any(outcome.lane == lane for outcome in group)]
        broken = [outcome.why for outcome in group if outcome.result != "passed"]
        text = told + (f" ({'; '.join(figures)})" if figures else "") + f" [{', '.join(lanes)}]"
        parts.append(f"{text}: fails: {broken[0]}" if broken else text)
    house = "; house checked" if any(outcome.house for outcome in outcomes) else ""
    return "; ".join(parts) + house
