"""Record what version 0.1.0 leaves on a disk: states, LoRAs, a queue, settings files, arguments.

It runs in a checkout of 0.1.0 (commit 72ae118), into which this file is copied, with the development environment:

    git worktree add ../v010 72ae118 && cp tests/record_v010.py ../v010/tests/
    cd ../v010 && OMP_NUM_THREADS=1 python -m tests.record_v010 path/to/tests/data/v010

Names of modules are those of 0.1.0, so they are texts and no imports. All paths in the files are relative to the folder
that is written, which is the current one while it records; `tests/test_v010.py` reads a copy of it in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

RUNNING = 8  # steps of the job that is interrupted
OUT, WORK, QUEUE, UPLOADS = Path("out"), Path("out/.train-lora"), Path("out/.train-lora/queue"), Path("uploads")
# the middle block and the text encoder alone: files stay small
LAYERS = {
    "train_layers": "cross-attention",
    "down_lr_weight": "0,0,0,0,0,0,0,0,0,0,0,0",
    "up_lr_weight": "0,0,0,0,0,0,0,0,0,0,0,0",
}
MIDDLE = {"train_layers": "cross-attention", "block_dims": ",".join(["0"] * 12 + ["1"] + ["0"] * 12)}  # the same, by ranks
COMMON = {
    "data": ["photos"], "trigger": "ohwx", "resolution": 64, "min_bucket_reso": 64, "rank": 1, "alpha": 1, "steps": 6,
    "preview_steps": 0, "unet_lr": 1e-3, "text_encoder_lr": 1e-3, "save_precision": "float", "save_every_n_steps": 3,
    "save_state": True, "mixed_precision": "no", "seed": 7,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "adamw": {**LAYERS, "lr_scheduler": "cosine", "lr_warmup_steps": 2, "ema_decay": 0.9, "batch_size": 2, "stop_text_encoder_training": 5, "network_dropout": 0.1,
              "shuffle_caption": True, "caption_dropout_rate": 0.2, "min_snr_gamma": 5.0, "noise_offset": 0.1},
    "lokr": {**LAYERS, "adapter_type": "lokr", "factor": 4, "optimizer": "Lion", "rank_dropout": 0.2, "scale_weight_norms": 0.05,
             "unet_lr": 1e-4, "text_encoder_lr": 1e-4},
    "dora": {**MIDDLE, "adapter_type": "dora", "optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0},
    "embedding": {**LAYERS, "embedding_vectors": 2, "stop_embedding_training": 5, "text_encoder_lr": 0, "ema_decay": 0.9,
                  "validation_split": 0.25, "validate_every_n_steps": 2},
    "adafactor": {**MIDDLE, "optimizer": "AdaFactor", "lr_scheduler": "adafactor", "text_encoder_lr": 0,
                  "gradient_accumulation_steps": 2},
    "classes": {**LAYERS, "adapter_type": "glora", "optimizer": "torch.optim.Adagrad", "unet_lr": 1e-2, "text_encoder_lr": 0,
                "lr_scheduler_type": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts", "lr_scheduler_args": ["T_0=2"]},
    "dylora": {**LAYERS, "unit": 1, "rank": 2, "alpha": 2, "module_dropout": 0.2, "text_encoder_lr": 0},
}  # fmt: skip
FOREIGN = {"lr_scheduler": "constant", "sample_prompts": "a blob --w 64 --h 64 --s 1", "metadata_author": "Jane Döe"}
ARGUMENTS = {
    "ours": ["--data", "photos", "--name", "blob", "--trigger", "ohwx", "--rank", "4", "--unet-lr", "2e-4", "--steps", "9",
             "--optimizer-args", "weight_decay=0.1", "eps=1e-6", "--shuffle-caption", "--overwrite", "false"],
    "kohya": ["--train_data_dir", "photos", "--output_name", "blob", "--network_dim", "4", "--learning_rate", "1e-4",
              "--max_train_epochs", "3", "--resolution", "128,96", "--network_args", "conv_dim=2", "rank_dropout=0.1",
              "--optimizer_type", "Prodigy"],
    "preset": ["--preset", "style", "--data", "photos", "--name", "blob"],
    "file": ["--config", "settings/ours.json", "--rank", "3"],
    "file of kohya's": ["--config", "settings/kohya.toml", "--output_name", "other"],
}  # fmt: skip


def room(name: str) -> Any:
    """A module of 0.1.0."""
    return import_module(f"lib_lora.{name}")


def configuration(**settings: Any) -> Any:
    """Settings of a short run."""
    return room("config.groups").build_config({**COMMON, **settings})


def write_photos(folder: Path, seed: int = 0) -> None:
    """Four smooth pictures in kohya's layout, three of them captioned."""
    rng = np.random.default_rng(seed)
    target = folder / "3_blob"
    target.mkdir(parents=True)
    for number, (width, height) in enumerate([(64, 64), (96, 64), (64, 96), (80, 60)]):
        small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).quantize(32).convert("RGB").save(target / f"{number}.png")
    for number in range(3):
        (target / f"{number}.txt").write_text(f"a blob, number {number}, soft")


def record_runs(host: Any) -> dict[str, Any]:
    """Whole runs with a state in the middle; the losses of all steps, and what is told of each LoRA."""
    events, told = room("events"), {}
    for name, changes in CASES.items():
        config = configuration(name=name, **changes)
        losses = [e.loss for e in room("train").train(config, host, events.Stop()) if isinstance(e, events.StepDone)]
        told[name] = {"settings": {**COMMON, **changes}, "losses": losses, **told_of(OUT / f"{name}.safetensors")}
        shutil.rmtree(WORK / name / f"{name}-step00000006-state")
        if name != "adamw":  # of the others the one in the middle is kept alone
            shutil.rmtree(WORK / name / f"{name}-state")
    return told


def told_of(path: Path) -> dict[str, Any]:
    """What `inspect` and "train again" say of a LoRA."""
    described = room("output.inspect").describe(path)
    try:
        again: Any = dict(room("training.again").again(path).settings)
    except room("errors").LoraFileError:
        again = None  # a type that is not gone on with
    return {"inspect": {key: value for key, value in described.items() if key not in {"file", "metadata"}}, "again": again}


def record_queue(host: Any, target: Path) -> dict[str, Any]:
    """A queue with a job in every state, copied while one of them is held; it is what a sudden end of the program leaves."""
    runner = room("jobs.runner").Runner(host)
    queue = room("jobs.queue").Queue(runner, room("jobs.queue_store").Store(QUEUE, UPLOADS))
    queued = {**LAYERS, "lr_scheduler": "linear", "save_every_n_steps": 2, "text_encoder_lr": 0}

    def submit(name: str, **changes: Any) -> None:
        queue.submit(configuration(name=name, **{**queued, **changes}))

    def held_at(step: int) -> None:
        wait(lambda: runner.job.snapshot()["step"] >= step)
        runner.hold()
        wait(lambda: runner.job.stop.held and runner._stands.is_set())

    shutil.copytree("photos", "lost")
    submit("finished", steps=60, save_state=False, save_every_n_steps=0)
    submit("failed", data=["lost"])
    shutil.rmtree("lost")
    wait(lambda: all(entry.over for entry in queue.entries))
    submit("stopped", steps=400)
    held_at(2)
    runner.stop(keep=False)
    wait(lambda: all(entry.over for entry in queue.entries))
    submit("running", steps=RUNNING)
    held_at(4)
    write_photos(UPLOADS / "dropped", seed=5)
    submit("first", steps=3, data=["photos|2"])
    submit("dropped", steps=3, data=[str(UPLOADS / "dropped")])
    queue.move(next(entry.id for entry in queue.entries if entry.name == "dropped"), -1)
    shutil.copytree(OUT, target / OUT)
    told = [[entry.name, entry.state, entry.step] for entry in queue.entries]
    configurations = {entry.name: differences(entry.settings) for entry in queue.entries}
    queue.hold()
    runner.go_on()
    wait(lambda: not runner.job.running)
    (target / "after").mkdir()
    shutil.copy(OUT / "running.safetensors", target / "after")
    return {"entries": told, "configurations": configurations, "losses": runner.job.snapshot()["losses"]}


def wait(condition: Callable[[], Any]) -> None:
    """Returns when it holds."""
    while not condition():
        time.sleep(0.002)


def differences(flat: dict[str, Any]) -> dict[str, Any]:
    """What is not 0.1.0's default, as JSON reads it."""
    default = room("config.groups").build_config({}).to_flat()
    return {key: value for key, value in json.loads(json.dumps(flat)).items() if value != json.loads(json.dumps(default[key]))}


def record_settings() -> dict[str, Any]:
    """Files of settings, and what 0.1.0 reads in them and in arguments and presets."""
    export, argv, presets = room("kohya.export"), room("config.argv"), room("config.presets").PRESETS
    folder = Path("settings")
    folder.mkdir()
    config = configuration(name="blob", optimizer="Prodigy", conv_dim=2, conv_alpha=1.0, **FOREIGN)
    text = json.dumps(config.to_flat(), indent=2, ensure_ascii=False) + "\n"  # as the tab's "Settings (JSON)"
    (folder / "ours.json").write_text(text, encoding="utf-8")
    for form, name in {"toml": "kohya.toml", "json": "kohya_ss.json", "dataset": "dataset.toml"}.items():
        for path, content in export.export_files(config, form, folder / name, relative=True).items():
            path.write_text(content, encoding="utf-8")
    files = {path.name: imported(path) for path in sorted(folder.iterdir())}
    parser = argparse.ArgumentParser(allow_abbrev=False)
    argv.add_options(parser)
    arguments = {
        name: {"arguments": given, "configuration": differences(argv.config_from(parser.parse_args(given)).to_flat())}
        for name, given in ARGUMENTS.items()
    }
    build = room("config.groups").build_config
    return {
        "files": files,
        "arguments": arguments,
        "defaults": build({}).to_flat(),
        "presets": {name: differences(build(preset.settings()).to_flat()) for name, preset in presets.items()},
        "commands": commands(room("cli")._parser()),
    }


def imported(path: Path) -> dict[str, Any]:
    """The configuration that a file becomes in the tab, and its keys by verdict."""
    found = room("kohya.importing").import_file(path, follow=False)
    verdicts = {verdict: sorted(said.key for said in getattr(found, verdict)) for verdict in ("not_supported", "unknown", "used")}
    return {"configuration": differences(found.config().to_flat()), **verdicts}


def commands(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Command -> its arguments: flags, and the names of those without."""
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {
        name: sorted(text for action in one._actions for text in action.option_strings or [action.dest])
        for name, one in found.choices.items()
    }


def main(target: Path) -> None:
    """Record everything into `target`, which is replaced."""
    torch.set_num_threads(1)
    write_mini = import_module("tests.synthetic").write_mini
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        host = room("hosts.standalone").StandaloneHost(write_mini(Path(folder) / "mini"), OUT)
        write_photos(Path("photos"))
        told: dict[str, Any] = {"runs": record_runs(host)}
        told["queue"] = record_queue(host, target)
        told.update(record_settings())
        for name in ("photos", "settings"):
            shutil.copytree(name, target / name)
        (target / "told.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in target.rglob("*.safetensors"):
        if path.parent.name == "out" and path.stem.removesuffix("-step00000003") not in CASES:  # of the queue, and twice the same
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
