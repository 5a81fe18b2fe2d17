"""Models of full size, if available: replays of sd-scripts' recordings, and the memory account against real runs.

Skipped unless SD15_CHECKPOINT or SDXL_CHECKPOINT names a checkpoint. For the replays RECORDINGS_DIR names a folder of recordings
that sd-scripts made on these checkpoints. A replay of SD 1.5 takes a minute, one of SDXL several and 16 GB of memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.recorded import assert_equal_to_sd_scripts

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = os.environ.get("RECORDINGS_DIR", "")
pytestmark = pytest.mark.timeout(3600)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def recordings() -> list[Any]:
    """The runs in the folder; recorded pixels have no options."""
    if not RECORDINGS:
        return [pytest.param(None, marks=pytest.mark.skip(reason="RECORDINGS_DIR is not set"), id="none")]
    found = [path for path in sorted(Path(RECORDINGS).glob("*.safetensors")) if "config" in metadata(path)]
    if not found:
        raise pytest.UsageError(f"RECORDINGS_DIR: {RECORDINGS!r} holds no recording of sd-scripts.")
    return [pytest.param(path, id=path.stem) for path in found]


def checkpoint(variable: str) -> str:
    """The file that an environment variable names."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set; it names a checkpoint of full size")
    return os.environ[variable]


def last_line(*command: str) -> Any:
    """What a program of ours prints at its end; in a process of its own, which has the memory to itself."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("recording", recordings())
def test_replay_of_a_recording_of_full_size(recording: Path) -> None:
    recorded = metadata(recording)
    file = checkpoint("SDXL_CHECKPOINT" if json.loads(recorded.get("sdxl", "false")) else "SD15_CHECKPOINT")
    report = last_line("lib_lora", "replay", str(recording), "--checkpoint", file)["replay"]
    print(recording.stem, report)
    assert_equal_to_sd_scripts(report, steps=len(json.loads(recorded["losses"])))


@pytest.mark.parametrize("size", [256, 384, 512])
def test_the_memory_account_beside_a_real_run(size: int) -> None:
    """SD 1.5: the peak that was told is within 15 % of the one that was measured."""
    asked = ("--checkpoint", checkpoint("SD15_CHECKPOINT"), "--size", str(size), "--precision", "no")
    found = last_line("tools.memory", *asked)["memory"]
    print(size, found)
    assert found["peak"]["predicted"] == pytest.approx(found["peak"]["measured"], rel=0.15)
