"""Compare the memory account with a real run: a few steps on a checkpoint, on CUDA if there is one, else on the CPU.

    python -m tools.memory --checkpoint FILE [--size 512] [--precision auto|no|fp16|bf16] [--checkpointing on|off]

The peak of a GPU is torch's count of allocated memory; that of a CPU the sampled resident size of the process, minus its size
before the model was loaded. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.data.sizes import Size
from lib_lora.estimate.estimate import DRAWING, ENCODING, GB, STEP, Account, account
from lib_lora.events import Encoded, Phase, Saved, StepDone
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.base import BaseModel
from lib_lora.run_control import RunControl
from lib_lora.settle import settle
from lib_lora.train import train
from lib_lora.training.precision import choose_precision
from tools.bench.case import Case, write_pictures
from tools.bench.peak import MemoryPeak, settled_gb


def main() -> dict[str, object]:
    """Estimate, run and compare."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(args, Path(folder))
        host = StandaloneHost(args.checkpoint, Path(folder) / "out", full_precision=args.precision == "no")
        device = host.device()
        predicted = _predicted(config, host.look(), device, checkpointing=args.checkpointing == "on")
        print(predicted.title, flush=True)
        import diffusers.loaders.single_file_utils  # noqa: F401 - what a program takes by itself is no part of the account

        empty = settled_gb()
        with host.borrow_model():
            held = torch.cuda.memory_allocated() / GB if device.type == "cuda" else settled_gb() - empty
        measured = dict(_measured(config, host, empty))
    rows = {"weights": (sum(predicted.weights.values()) / GB, held)}
    rows |= {name: (predicted.peaks[name] / GB, measured[name]) for name in predicted.phases if name in measured}
    rows["peak"] = (predicted.peak / GB, max(measured.values()))
    rows["peak without weights"] = (predicted.added / GB, max(measured.values()) - held)
    for name, (told, found) in rows.items():
        print(f"{name:22} predicted {told:6.2f} GB, measured {found:6.2f} GB, {100 * (told / found - 1):+.0f} %")
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    compared = {name: {"predicted": round(told, 3), "measured": round(found, 3)} for name, (told, found) in rows.items()}
    return {"memory": {"title": predicted.title, "device": device_name, "torch": torch.__version__, **compared}}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The memory account beside a real run.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "no", "fp16", "bf16"), default="auto")
    parser.add_argument("--checkpointing", choices=("on", "off"), default="off")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--text-lr", type=float, default=5e-5)
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--preview-steps", type=int, default=1)
    return parser.parse_args()


def _config(args: argparse.Namespace, folder: Path) -> TrainConfig:
    pictures = write_pictures(folder / "pictures", Case(args.size, args.steps, max(args.batch, 2), {}))
    return build_config(
        {
            "data": [str(pictures)], "out": str(folder / "out"), "name": "memory", "resolution": args.size,
            "enable_bucket": False, "batch_size": args.batch, "rank": args.rank, "alpha": args.rank,
            "unet_lr": 1e-4, "text_encoder_lr": args.text_lr,
            "optimizer": args.optimizer, "steps": args.steps, "preview_steps": args.preview_steps,
            "mixed_precision": args.precision, "gradient_checkpointing": args.checkpointing,
        }
    )  # fmt: skip


def _predicted(config: TrainConfig, base: BaseModel, device: torch.device, *, checkpointing: bool) -> Account:
    precision = choose_precision(config.precision, device, next(base.unet.parameters()).dtype)
    size = Size(config.data.resolution, config.data.resolution)
    preview = size if config.run.preview_steps else None
    return account(
        settle(config, base.detected),
        base,
        device.type,
        precision,
        size=size,
        checkpointing=checkpointing,
        captions=2,
        preview=preview,
    )


def _measured(config: TrainConfig, host: StandaloneHost, empty: float) -> Iterator[tuple[str, float]]:
    """The peak of each phase, in GiB."""
    cuda, peaks = host.device().type == "cuda", dict.fromkeys((ENCODING, STEP, DRAWING), 0.0)
    with MemoryPeak() as memory:

        def taken(name: str) -> None:
            found = torch.cuda.max_memory_allocated() / GB if cuda else memory.begin_again() - empty
            peaks[name] = max(peaks[name], found)
            if cuda:
                torch.cuda.reset_peak_memory_stats()

        for event in train(config, host, RunControl()):
            if isinstance(event, Encoded):
                taken(ENCODING)
            elif isinstance(event, (StepDone, Saved)):
                taken(STEP)
            elif isinstance(event, Phase):
                memory.begin_again()
        taken(DRAWING)
    yield from ((name, peak) for name, peak in peaks.items() if peak > 0 and (name != DRAWING or config.run.preview_steps))


if __name__ == "__main__":
    print(json.dumps(main()))
