"""`make bench`: run us and, if SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON are set, kohya sd-scripts by turns, and compare medians; then
measure the Images room.

The last line of stdout is one JSON object; the lines before it are for people.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_lora.data.tokens import VOCABULARY
from tests.synthetic import write_full
from tools.bench import images
from tools.bench.case import CASES, Case, write_pictures

ROUNDS = 3
Run = dict[str, Any]


def main(build: Path, pins_python: Path) -> Run:
    """Measure the first case; all files are written below `build`."""
    name, case = next(iter(CASES.items()))
    checkpoint = build / "sd15-full.safetensors"
    if not checkpoint.exists():
        say("making a full-shape checkpoint (2.1 GB)")
        write_full(build)
    pictures = write_pictures(build / name, case)
    counts = run_ours(pins_python, name, checkpoint, pictures, build, "--count")
    say(f"one step: {counts['operators']} operators, {counts['saved_bytes'] / 1e6:.0f} MB saved for backward, "
        f"{counts['flops'] / 1e9:.0f} GFLOP; a matrix product runs at {counts['rate'] / 1e9:.0f} GFLOP/s")  # fmt: skip
    ours: list[Run] = []
    theirs: list[Run] = []
    for number in range(ROUNDS):
        ours.append(run_ours(pins_python, name, checkpoint, pictures, build))
        say(f"round {number + 1}: ours {described(ours[-1])}")
        if os.environ.get("SD_SCRIPTS_DIR"):
            theirs.append(run_theirs(case, checkpoint, pictures, build))
            say(f"round {number + 1}: sd-scripts {described(theirs[-1])}")
    step = median_of_steps(ours)
    limit = counts["flops"] / counts["rate"]
    say(f"arithmetic limit {limit:.2f} s per step")
    room = images.measure(pins_python.absolute(), build)
    say(f"200 photos of 12 MP: a thumbnail {room['first_thumbnail_s']} s after the first, the report "
        f"{room['report_after_last_byte_s']} s after the last byte ({room['cpu_s']} s of a processor in all), "
        f"{room['added_mb']:.0f} MB added; 2,000 images open again in {room['open_2000_again_s']} s "
        f"({room['open_2000_again_cpu_s']} s of a processor)")  # fmt: skip
    return {
        "step_s": round(step, 3),
        "first_step_s": round(statistics.median(run["first_step"] for run in ours), 2),
        "added_peak_gb": round(statistics.median(run["peak_gb"] for run in ours), 3),
        "limit_fraction": round(limit / step, 3),
        "torch": {"ours": ours[0]["torch"], "theirs": theirs[0]["torch"] if theirs else None},
        "images": room,
        "vs_sd_scripts": compared(ours, theirs) if theirs else None,
    }


def run_ours(python: Path, name: str, checkpoint: Path, pictures: Path, build: Path, *flags: str) -> Run:
    """One run of ours in a new process."""
    out = build / "ours"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [str(python), "-m", "tools.bench.ours", name, str(checkpoint), str(pictures), str(out), *flags]
    return last_object(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run_theirs(case: Case, checkpoint: Path, pictures: Path, build: Path) -> Run:
    """One run of sd-scripts, launched as its documents say; the peak is the largest resident size of its process.

    Times count from the start of the script; `launched_first_step` from that of its launcher.
    """
    options = {**case.options, "resolution": f"{case.side},{case.side}", "max_train_steps": case.steps}
    script = str(Path(__file__).with_name("theirs.py"))
    launcher = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no",
                "--dynamo_backend", "no", "--cpu", "--num_cpu_threads_per_process", str(os.cpu_count())]  # fmt: skip
    command = [os.environ["SD_SCRIPTS_PYTHON"], *launcher, script, os.environ["SD_SCRIPTS_DIR"], str(checkpoint), str(pictures),
               str(build / "theirs"), json.dumps(options)]  # fmt: skip
    environment = {**os.environ, "HF_HOME": str(offline_cache(build).resolve()), "HF_HUB_OFFLINE": "1"}
    log = build / "theirs.log"
    started = time.time()
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"sd-scripts ended with status {status}; see {log}")
    told = last_object(text)
    begun = told["begun"]
    return {
        "steps": [after - before for before, after in zip(begun[1:], begun[2:])],
        "first_step": begun[1] - told["started"],
        "launched_first_step": begun[1] - started,
        "total": time.time() - told["started"],
        "peak_gb": usage.ru_maxrss / 2**20,
        "torch": told["torch"],
    }


def offline_cache(build: Path) -> Path:
    """A hub cache with CLIP's tokenizer, so that sd-scripts needs no network."""
    repository = build / "hf" / "hub" / "models--openai--clip-vit-large-patch14"
    shutil.copytree(VOCABULARY, repository / "snapshots" / "local", dirs_exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text("local")
    return build / "hf"


def compared(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, float]:
    """Ratios of medians, ours to theirs."""
    ratios = {"step": median_of_steps(ours) / median_of_steps(theirs)}
    for key, name in (("first_step", "first_step"), ("total", "total"), ("peak_gb", "peak_memory")):
        ratios[name] = statistics.median(run[key] for run in ours) / statistics.median(run[key] for run in theirs)
    launched = statistics.median(run["launched_first_step"] for run in theirs)
    ratios["first_step_from_launcher"] = statistics.median(run["first_step"] for run in ours) / launched
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def median_of_steps(runs: Sequence[Run]) -> float:
    """Median over the steps of all runs, in seconds."""
    return statistics.median(seconds for run in runs for seconds in run["steps"])


def described(run: Run) -> str:
    """A run in words, with the spread of its steps."""
    steps = run["steps"]
    return (f"{statistics.median(steps):.2f} s per step ({min(steps):.2f} to {max(steps):.2f}), first step after "
            f"{run['first_step']:.1f} s, {run['total']:.1f} s in all, {run['peak_gb']:.2f} GB")  # fmt: skip


def last_object(text: str) -> Run:
    """The JSON object of the last line that is one."""
    line = next(line for line in reversed(text.splitlines()) if line.startswith("{"))
    found: Run = json.loads(line)
    return found


def say(text: str) -> None:
    """Print a line for people."""
    print(text, flush=True)


if __name__ == "__main__":
    print(json.dumps({"bench": main(Path("build/bench"), Path(sys.argv[1]))}))
