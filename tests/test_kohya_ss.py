"""kohya_ss' own settings files of LoRAs, at every tag from v21 to v26: each is imported and planned, or refused for a known reason.

KOHYA_SS_DIR names a checkout of kohya_ss, or its bare git folder; it is only read. Identical files are tested once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_lora.check import find_images
from lib_lora.config.groups import build_config
from lib_lora.config.optimizer_specs import OptimizerSpec
from lib_lora.config.rules import config_problems
from lib_lora.errors import TrainLoraError
from lib_lora.kohya.importing import Imported, Said, import_file
from lib_lora.plan import make_plan

KOHYA_SS_DIR = os.environ.get("KOHYA_SS_DIR", "")
pytestmark = pytest.mark.skipif(
    not KOHYA_SS_DIR, reason="KOHYA_SS_DIR names no checkout of kohya_ss, so its files are not tried."
)
FOLDERS = ("presets/lora", "test/config")
PRODUCTS = {"LyCORIS/LoHa", "LyCORIS/LoKr"}
# what a file may be refused for, by kind of key
REASONS = {
    "bucket_reso_steps": "bucket_reso_steps 1",
    **{key: f"{key} with LoHa or LoKr" for key in ("use_cp", "train_norm", "rank_dropout_scale")},
    "train_on_input": "train_on_input with (IA)³",
}


@dataclass(frozen=True)
class Found:
    """A file of kohya_ss, with the first of its tags."""

    tag: str
    path: str
    blob: str


def git(*arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-C", KOHYA_SS_DIR, *arguments]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout


def tags() -> list[str]:
    return [tag for tag in git("tag", "--sort=version:refname").split() if re.match(r"v?2[1-6]\.", tag)]


def files() -> Iterator[Found]:
    """Every settings file at every tag."""
    for tag in tags():
        for row in git("ls-tree", "-r", "-z", tag, *FOLDERS).split("\0"):
            blob, _, path = row.partition("\t")
            if path.endswith((".json", ".toml")):
                yield Found(tag, path, blob.split()[2])


def is_lora(found: Found, settings: dict[str, Any]) -> bool:
    return "LoRA_type" in settings or found.path.startswith("presets/lora/")


def written(found: Found, root: Path) -> Path:
    """The file, and beside it the dataset files of its tag."""
    for row in git("ls-tree", "-r", "-z", found.tag, "test/config").split("\0"):
        blob, _, path = row.partition("\t")
        if path.endswith(".toml"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(git("cat-file", "blob", blob.split()[2]), encoding="utf-8")
    target = root / found.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(git("cat-file", "blob", found.blob), encoding="utf-8")
    return target


def reason(said: Said, settings: dict[str, Any]) -> str | None:
    """Why a key may be refused; None where it may not."""
    kind = str(settings.get("LoRA_type", ""))
    if kind.startswith("Flux1"):
        return "FLUX"
    if kind == "LyCORIS/DyLoRA":
        return "LyCORIS' DyLoRA"
    if said.key == "bucket_reso_steps" and int(said.value) != 1:
        return None
    if said.key == "train_on_input" and kind != "LyCORIS/iA3":
        return None
    if said.key in ("use_cp", "train_norm", "rank_dropout_scale") and kind not in PRODUCTS:
        return None
    return REASONS.get(said.key)


def plan_problems(imported: Imported, images: Path) -> list[str]:
    masks = str(images) if imported.flat.get("masked_loss") else ""
    given = {"name": "x", "trigger": "zxq", "data": [str(images)], "reg_data": [], "mask_data": masks}
    config = build_config({**imported.flat, **given})
    problems = config_problems(config)
    if problems:
        return problems
    try:
        make_plan(config, find_images(config))
    except TrainLoraError as error:
        return error.problems
    return []


def test_every_file_of_a_lora_is_planned_or_refused_for_a_known_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OptimizerSpec, "installed", lambda self: True)
    images = tmp_path / "photos" / "3_x"
    images.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (640, 512), (200, 90, 40)).save(images / f"{name}.png")
    everything = list(files())
    distinct = {(found.blob, found.path.startswith("presets")): found for found in reversed(everything)}
    counts, refused, wrong = Counter[str](), Counter[str](), list[str]()
    for number, found in enumerate(distinct.values()):
        content = git("cat-file", "blob", found.blob)
        settings = {} if found.path.endswith(".toml") else json.loads(content)
        if not is_lora(found, settings):
            counts["of no LoRA"] += 1
            continue
        imported = import_file(written(found, tmp_path / str(number)))
        told = [*imported.not_supported, *imported.unknown]
        reasons = {reason(said, settings) or f"{said.key} = {said.value!r}: {said.why}" for said in told}
        wrong += [f"{found.tag} {found.path}: {said.key}: {said.why}" for said in told if reason(said, settings) is None]
        if told:
            counts["refused"] += 1
            refused.update(reasons)
            continue
        counts["planned"] += 1
        wrong += [f"{found.tag} {found.path}: {problem}" for problem in plan_problems(imported, images.parent)]
    print(
        f"{len(tags())} tags, {len(everything)} files, {len(distinct)} of them distinct: {dict(counts)}; refused for {dict(refused)}"
    )
    assert counts["planned"] > counts["refused"] > 0
    assert wrong == [], "\n".join(wrong)
