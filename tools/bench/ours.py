"""One run of ours in its own process, on ldm's modules as in a webui. Prints one JSON line.

python -m tools.bench.ours CASE CHECKPOINT PICTURES OUT [--count]
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.events import StepDone
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.hosts.ldm_config import write_beside
from lib_lora.hosts.ldm_model import LdmModel, detected_model
from lib_lora.kohya.importing import from_kohya
from lib_lora.model.base import ModelInfo
from lib_lora.model.trainable import made_trainable
from lib_lora.output.inspect import describe
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.pins.webui_double import load_ldm
from tools.bench.case import CASES, Case
from tools.bench.counting import count_step
from tools.bench.peak import CPU, MemoryPeak


class LdmHost:
    """A `Host` that holds a checkpoint as the webui does on a CPU: ldm's classes, fp32."""

    def __init__(self, checkpoint: Path, out: Path) -> None:
        self._out, self._checkpoint = out, checkpoint
        write_beside(checkpoint, load_file(checkpoint))
        self.model = load_ldm(checkpoint)

    def problems(self) -> list[str]:
        return []

    def detected_model(self) -> DetectedModel:
        return detected_model(self.model, SD1)

    def device(self) -> torch.device:
        return CPU

    def work_folder(self) -> Path:
        return self.lora_folder() / ".train-lora"

    def keeps(self, folder: Path) -> bool:
        return False

    def hides_pictures(self) -> bool:
        return False

    def lora_folder(self) -> Path:
        return self._out

    @contextmanager
    def borrow_model(self) -> Iterator[LdmModel]:
        model = self.look()
        with made_trainable(model, model.whole):
            yield model

    def look(self) -> LdmModel:
        return LdmModel(self.model, CPU, ModelInfo(self._checkpoint.name, None, None))

    def someone_waits(self) -> bool:
        return False

    @contextmanager
    def borrow_again(self, base: LdmModel, *, needs_vae: bool, insist: bool) -> Iterator[None]:
        with made_trainable(base, base.whole):
            yield

    def check_lora(self, path: Path) -> None:
        assert describe(path)["modules"] > 0

    def announce(self, path: Path) -> None:
        """Do nothing."""

    def software(self) -> dict[str, Any]:
        return {"python": platform.python_version(), "torch": torch.__version__}


def configuration(case: Case, pictures: Path, out: Path) -> TrainConfig:
    """Our configuration of the case."""
    flat = from_kohya({**case.options, "max_train_steps": case.steps}).flat
    extra = {"data": [str(pictures)], "out": str(out), "name": "bench", "overwrite": True, "preview_steps": 0}
    return build_config({**flat, "resolution": case.side, "enable_bucket": False, **extra})


def main(name: str, checkpoint: Path, pictures: Path, out: Path, *, count: bool) -> dict[str, Any]:
    """Train the case and return its times and peak; with `count`, the counts of one step instead."""
    case = CASES[name]
    host = LdmHost(checkpoint, out)
    config = configuration(case, pictures, out)
    if count:
        with host.borrow_model() as base:
            return count_step(config, base)
    finished = []
    with MemoryPeak() as memory:
        started = time.perf_counter()
        for event in train(config, host, RunControl()):
            if isinstance(event, StepDone):
                finished.append(time.perf_counter() - started)
        total = time.perf_counter() - started
    steps = [after - before for before, after in zip(finished, finished[1:])]
    return {"steps": steps, "first_step": finished[0], "total": total, "peak_gb": memory.peak - memory.before,
            "torch": torch.__version__}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(Path, sys.argv[2:5]), count="--count" in sys.argv)))
