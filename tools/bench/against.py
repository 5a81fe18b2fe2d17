"""`make bench AGAINST=CHECKOUT`: compare an older checkout with this one, in the same environment, on the same case.

    python -m tools.bench.against PYTHON CHECKOUT

Each checkout trains in one process that keeps its model; while one trains, the other waits. The first round of each is a warm-up
and not counted. Exit code 1: step or peak is more than LIMIT times the older checkout's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.synthetic import write_full
from tools.bench.case import CASES, write_pictures

ROUNDS = 7
LIMIT = 1.03
HERE = Path(__file__).resolve().parents[2]
Run = dict[str, Any]


class Checkout:
    """A process that trains one round per request."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log

    def train(self) -> Run:
        """Train one round.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                run: Run = json.loads(line)
                return run
        raise RuntimeError(f"A checkout's process ended; its log is {self._log}.")


@contextmanager
def started(python: Path, folder: Path, arguments: Sequence[str], log: Path) -> Iterator[Checkout]:
    """The process of the checkout in `folder`, killed at the exit."""
    command = [str(python), str(Path(__file__).with_name("rounds.py")), *arguments]
    with log.open("w") as errors, subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as process:  # fmt: skip
        try:
            yield Checkout(process, log)
        finally:
            process.kill()


def in_turn(rounds: int) -> list[tuple[str, str]]:
    """The order in each round: A B, B A, A B, …, so that a slow drift of the machine affects both alike."""
    return [("before", "now") if number % 2 == 0 else ("now", "before") for number in range(rounds)]


def measure(checkouts: Mapping[str, Checkout], rounds: int) -> dict[str, list[Run]]:
    """All rounds of both except the first, the warm-up."""
    runs: dict[str, list[Run]] = {"before": [], "now": []}
    for number, names in enumerate(in_turn(rounds + 1)):
        for name in names:
            run = checkouts[name].train()
            if number:
                runs[name].append(run)
                say(f"round {number}, {name}: {step_of([run]):.3f} s per step, peak {run['peak_gb']:.3f} GB")
    return runs


def compared(runs: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """Medians of both, and their ratios, now to before. The peak is what training adds to the memory of the process."""
    steps, peaks = ({name: median(found) for name, found in runs.items()} for median in (step_of, peak_of))
    return {
        **{f"step_s_{name}": round(value, 3) for name, value in steps.items()},
        **{f"peak_gb_{name}": round(value, 3) for name, value in peaks.items()},
        "step_ratio": round(steps["now"] / steps["before"], 4),
        "peak_ratio": round(peaks["now"] / peaks["before"], 4),
    }


def step_of(runs: Sequence[Run]) -> float:
    """Median over the steps of all runs, in seconds."""
    return statistics.median(seconds for run in runs for seconds in run["steps"])


def peak_of(runs: Sequence[Run]) -> float:
    """Median of the runs' peaks, in GiB."""
    return statistics.median(run["peak_gb"] for run in runs)


def say(text: str) -> None:
    """Print a line for people."""
    print(text, flush=True)


def main(python: Path, against: Path, build: Path, here: Path = HERE, rounds: int = ROUNDS) -> int:
    """Measure the first case; all files are written below `build`. The last line of stdout is one JSON object."""
    name, case = next(iter(CASES.items()))
    build = build.absolute()
    checkpoint = build / "sd15-full.safetensors"
    if not checkpoint.exists():
        say("making a full-shape checkpoint (2.1 GB)")
        write_full(build)
    pictures = write_pictures(build / name, case)
    with ExitStack() as stack:
        checkouts = {}
        for which, folder in (("before", against), ("now", here)):
            out = build / which
            out.mkdir(parents=True, exist_ok=True)
            arguments = [name, str(checkpoint), str(pictures), str(out)]
            checkouts[which] = stack.enter_context(started(python.absolute(), folder, arguments, build / f"{which}.log"))
        found = compared(measure(checkouts, rounds))
    too_much = [key for key in ("step_ratio", "peak_ratio") if found[key] > LIMIT]
    say(f"{' and '.join(too_much)} above {LIMIT}" if too_much else f"step and peak at most {LIMIT} of before")
    print(json.dumps({"against": found}))
    return 1 if too_much else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), Path("build/bench")))
