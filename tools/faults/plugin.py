"""pytest plugin: `@pytest.mark.case(9)` assigns a test to a case of the fault campaign; `--faults LANE` collects the outcomes.

`--faults` also turns on the long figures, writes `build/faults/LANE.json`, and rewrites `docs/faults.md` from all lanes of
the folder. A test reports what it measured with the `figure` fixture. The lane `gpu` runs the cases to repeat on a GPU, on CUDA;
its outcomes are kept in `docs/faults-gpu.json`, since most machines cannot repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.faults.cases import CASES
from tools.faults.report import LANES, Outcome, Result, read_outcomes, report, write_outcomes

ROOT = Path(__file__).parents[2]
OUTCOMES, REPORT = ROOT / "build" / "faults", ROOT / "docs" / "faults.md"
KEPT = {"gpu": ROOT / "docs" / "faults-gpu.json"}
HOUSE = "house"  # the fixture that checks the five criteria


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--faults LANE`."""
    parser.addoption("--faults", choices=sorted(LANES), help="run the long fault campaign, and renew docs/faults.md")


def pytest_configure(config: pytest.Config) -> None:
    """Collect outcomes if `--faults` is given."""
    config.addinivalue_line("markers", "case(number, …): a case of the fault campaign (docs/faults.md)")
    lane = config.getoption("--faults")
    if lane:
        config.pluginmanager.register(_Gatherer(lane), "faults-gatherer")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse unknown case numbers; in the lane `gpu`, keep only the cases that are repeated there."""
    known = {case.number for case in CASES}
    for item in items:
        unknown = set(numbers(item)) - known
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: no such case of the fault campaign: {sorted(unknown)}")
    if config.getoption("--faults") == "gpu":
        again = {case.number for case in CASES if case.gpu}
        items[:] = [item for item in items if again.intersection(numbers(item))]


def path_of(lane: str) -> Path:
    """The file with the outcomes of a lane."""
    return KEPT.get(lane, OUTCOMES / f"{lane}.json")


def card() -> str:
    """The GPU's name and torch's version."""
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def numbers(item: pytest.Item) -> list[int]:
    """The numbers of a test's cases."""
    return sorted({number for mark in item.iter_markers("case") for number in mark.args})


def told(item: pytest.Item) -> str:
    """What a test does: the first paragraph of its docstring, or its name in words."""
    function = getattr(item, "function", None)
    doc = (getattr(function, "__doc__", None) or "").strip().split("\n\n")[0]
    if doc:
        return " ".join(doc.split()).rstrip(".")
    return item.name.partition("[")[0].removeprefix("test_").replace("_", " ")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long figures are turned on."""
    return bool(request.config.getoption("--faults"))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that adds a number to the report."""
    return lambda text: record_property("figure", text)


class _Gatherer:
    """Collects the outcomes of each test's cases."""

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._outcomes: list[Outcome] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        found: Any = yield
        said = found.get_result()
        if said.when == "call" or said.outcome != "passed":  # also a skip, or a failure in setup or teardown
            self._outcomes += [self._outcome(number, item, said) for number in numbers(item)]

    def _outcome(self, number: int, item: pytest.Item, said: Any) -> Outcome:
        result: Result = said.outcome
        why = ""
        if getattr(said, "wasxfail", None) is not None:
            result, why = ("known", said.wasxfail.removeprefix("reason: ")) if said.skipped else ("failed", "passes unexpectedly")
        elif said.failed:
            why = (str(said.longrepr.reprcrash.message) if hasattr(said.longrepr, "reprcrash") else "error").splitlines()[0][:200]
        figures = tuple(str(value) for key, value in item.user_properties if key == "figure")
        house = HOUSE in getattr(item, "fixturenames", ())
        return Outcome(number, self._lane, item.nodeid, result, told(item), figures, house, why)

    def pytest_sessionfinish(self) -> None:
        """Rewrite the document. The lane's earlier outcomes of tests that did not run this time stay."""
        again = {outcome.test for outcome in self._outcomes}
        others = [old for old in read_outcomes([path_of(self._lane)])[0] if old.test not in again]
        write_outcomes(path_of(self._lane), [*others, *self._outcomes], card() if self._lane == "gpu" else "")
        REPORT.write_text(report(*read_outcomes(path_of(lane) for lane in LANES)), encoding="utf-8")
