"""Thousands of malformed files through every reader: a sentence or a legal value, never another exception."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lib_lora.replay.data as replay_data_room
from lib_lora.config.groups import all_options, build_config
from lib_lora.config.rules import config_problems
from lib_lora.data.captions import CaptionSource, caption_file, written_caption
from lib_lora.data.tokens import load_tokenizer
from lib_lora.errors import LoraFileError, TrainLoraError
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.files.lora_file import read
from lib_lora.files.state_file import TENSORS, VALUES, write_state
from lib_lora.hosts.checkpoint import kind_of_file, read_shapes, says_v
from lib_lora.jobs.queue_store import JOB, ORDER, Store
from lib_lora.kohya.importing import import_file
from lib_lora.kohya.table import key_table
from lib_lora.model.base import Target
from lib_lora.model.layer_report import layers_text
from lib_lora.output.card import write_card
from lib_lora.output.inspect import describe
from lib_lora.output.removal import clean_up
from lib_lora.output.truncate import truncate
from lib_lora.replay.data import replay_data
from lib_lora.replay.step import load_recording
from lib_lora.settle import settle
from lib_lora.training.continue_settings import continue_settings
from lib_lora.training.continued_files import weights_problems
from lib_lora.training.initial_adapters import initial_adapters, merged_adapters
from lib_lora.training.latent_cache import LatentCache, _path
from lib_lora.training.resume import find_resumed
from lib_lora.training.vae import Posterior
from tests import malformed
from tests.conftest import small_config, write_picture
from tests.malformed import CONV, MIDDLE, TEXT, UNET, mutated
from tests.states import Lender, as_written, planned, run_state, state_folder

DATA = Path(__file__).parent / "data"
MOST_SECONDS = 5.0  # of computing, for one file and all of its readers
Reader = Callable[[], Any]


class Readers:
    """Tries files on readers, and counts what came of it."""

    def __init__(self) -> None:
        self.files, self.refused, self.legal = 0, 0, 0

    def see(self, number: int, **readers: Reader) -> None:
        """One file: each reader answers with a value, or with sentences."""
        self.files += 1
        begun = time.process_time()
        for name, reader in readers.items():
            try:
                reader()
                self.legal += 1
            except TrainLoraError as error:
                self.refused += 1
                longest = max(error.problems, key=len)
                assert 0 < len(longest) < 20_000, (number, name, longest[:300])
            except Exception as error:
                raise AssertionError(f"file {number}, reader {name}: {type(error).__name__}: {error}") from error
        assert time.process_time() - begun < MOST_SECONDS, (number, "takes too long")


@pytest.fixture
def readers() -> Readers:
    return Readers()


def no_nan(value: str) -> None:
    raise AssertionError(f"{value} is no JSON")


@pytest.fixture(scope="module")
def base() -> Any:
    modules = {TEXT: nn.Linear(6, 5), UNET: nn.Conv2d(6, 5, 1), MIDDLE: nn.Linear(6, 5), CONV: nn.Conv2d(6, 5, 3, padding=1)}
    targets = [Target(name, module, "text_encoder" if name == TEXT else "unet") for name, module in modules.items()]
    unet = nn.Module()
    return SimpleNamespace(targets=lambda: targets, device=torch.device("cpu"), unet=unet, text_encoders=(), family=SD1)


def test_loras(base: Any, tmp_path: Path, readers: Readers) -> None:
    """Inspect, cut down, go on from, merge first, train again: what is let through before a model is there fits or is told."""
    path, out = tmp_path / "a.safetensors", tmp_path / "cut.safetensors"

    def described() -> None:
        found = json.loads(json.dumps(describe(path)), parse_constant=no_nan)
        numbers = (value for value in read(path)[0].values() if not bool(torch.isfinite(value.float()).all()))
        assert bool(found["not_finite"]) >= any(True for _ in numbers)

    kinds = ["lora", "dora", "loha", "lokr", "ia3", "diag-oft", "glora"]
    flat = {"rank": 2, "alpha": 2, "text_encoder_lr": 1e-4, "conv_dim": 2, "conv_alpha": 2}
    configs = {
        (kind, ranks): settle(
            build_config({"network_weights": str(path), "adapter_type": kind, "dim_from_weights": ranks, **flat}), None
        )
        for kind in kinds
        for ranks in (False, True)
    }
    below = settle(build_config({"base_weights": [str(path)], "text_encoder_lr": 1e-4}), None)

    def continued(kind: str, *, ranks: bool) -> None:
        config = configs[kind, ranks]
        if ranks:
            layers_text(config, SD1)
        problems = weights_problems(config, DetectedModel(SD1, "a test"))
        if problems:
            raise LoraFileError(problems[0])
        for pair in initial_adapters(config, base):
            assert all(bool(torch.isfinite(value).all()) for value in pair.named().values()) and math.isfinite(pair.alpha)

    def merged() -> None:
        problems = weights_problems(below, DetectedModel(SD1, "a test"))
        if problems:
            raise LoraFileError(problems[0])
        merged_adapters(below, base)

    def cut() -> None:
        out.unlink(missing_ok=True)
        truncate(path, 1, out)

    for number in range(600):
        rng = random.Random(number)
        path.write_bytes(malformed.lora(rng))
        kind = rng.choice(kinds)
        readers.see(number, describe=described, truncate=cut, again=lambda: continue_settings(path), merge=merged,
                    go_on=lambda kind=kind: continued(kind, ranks=False), ranks=lambda kind=kind: continued(kind, ranks=True))  # fmt: skip
    assert readers.files == 600 and readers.legal > 230 and readers.refused > 3000


def test_checkpoints_and_what_lies_beside_them(tmp_path: Path, readers: Readers) -> None:
    tables = [
        {key: shape for key, shape in json.loads((DATA / name).read_text()).items() if not key.endswith(".bias")}
        for name in ("sd15_shapes.json", "sdxl_shapes.json")
    ]
    path = tmp_path / "a.safetensors"
    for number in range(120):
        rng = random.Random(number)
        path.write_bytes(malformed.checkpoint(rng, tables[number % 8 == 0]))
        readers.see(number, shapes=lambda: read_shapes(path), kind=lambda: kind_of_file(path))
    beside = path.with_suffix(".yaml")
    for number in range(150):
        beside.write_bytes(malformed.yaml_bytes(random.Random(number)))
        readers.see(number, says_v=lambda: says_v(path, {}))
    assert readers.files == 270 and readers.refused > 100 and readers.legal > 50


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("malformed") / "photos"
    for number in range(2):
        write_picture(folder / "3_blob" / f"{number}.png", seed=number)
    return folder


def test_states(pictures: Path, tmp_path: Path, readers: Readers) -> None:
    """Bytes that were changed, and values that were changed under a checksum that is right."""
    config = small_config(pictures, tmp_path, steps=9, overwrite=True, resume="blob", ema_decay=0.9)
    plan, host = planned(config), Lender(tmp_path)
    values, tree = run_state(config, plan)
    folder = tmp_path / ".train-lora" / "blob" / "blob-state"
    plain, tensors = as_written(values, tree)
    write_state(folder, plain, tensors)
    whole = {name: (folder / name).read_bytes() for name in (VALUES, TENSORS)}

    def look() -> None:
        assert state_folder("blob", host.work_folder()) == folder
        clean_up(tmp_path, folder.parent)
        find_resumed(settle(config, None), plan, host, None)

    for number in range(200):
        rng = random.Random(number)
        if number % 4 == 0:
            name = rng.choice([VALUES, TENSORS])
            (folder / VALUES).write_bytes(whole[VALUES])
            (folder / TENSORS).write_bytes(whole[TENSORS])
            (folder / name).write_bytes(mutated(whole[name], rng))
        else:
            part = rng.choice(["state", "state", "position", "versions", "configuration", "steps", "precision"])
            write_state(folder, {**plain, part: malformed.changed_somewhere(rng, plain[part])}, tensors)
        readers.see(number, resume=look)
    assert host.borrowed == 0 and readers.refused > 120


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_settings_and_datasets(suffix: str, tmp_path: Path, readers: Readers) -> None:
    names = sorted({*key_table(), *(opt.name for opt in all_options()), "datasets", "general", "sd_webui_train_lora", "subsets"})
    path = tmp_path / f"a{suffix}"

    def imported(follow: bool) -> None:
        found = import_file(path, follow=follow)
        json.dumps(found.report(), allow_nan=False)
        config_problems(found.config())

    for number in range(120):
        rng = random.Random(number)
        text = (malformed.toml if suffix == ".toml" else malformed.settings)(rng, names).encode("utf-8", "surrogatepass")
        path.write_bytes(mutated(text, rng) if rng.random() < 0.2 else text)
        readers.see(number, here=lambda: imported(False), follow=lambda: imported(True))
    assert readers.files == 120 and readers.legal > 30


def test_prompts(tmp_path: Path, readers: Readers) -> None:
    path = tmp_path / "prompts.txt"
    config = build_config({"sample_prompts": str(path), "sample_every_n_steps": 1, "name": "x", "data": ["x"]})
    refused = 0
    for number in range(120):
        path.write_bytes(malformed.prompts(random.Random(number)))
        found: list[list[str]] = []
        readers.see(number, rules=lambda found=found: found.append(config_problems(config)))
        refused += any("sample_prompts" in problem for problem in found[0])
    assert refused > 20


def test_captions(tmp_path: Path, readers: Readers) -> None:
    image = tmp_path / "a.png"

    def caption(source: CaptionSource) -> str | None:
        found = caption_file(image, source, tmp_path)
        return written_caption(image, found.text(source) if found else None, "blob", source)

    for number in range(150):
        rng = random.Random(number)
        (tmp_path / "a.txt").write_bytes(malformed.text_bytes(rng))
        source = CaptionSource(trigger="ohwx", all_lines=rng.random() < 0.5)
        readers.see(number, caption=lambda source=source: caption(source))
    assert readers.legal > 50


def test_cards(tmp_path: Path, readers: Readers) -> None:
    for number in range(80):
        rng = random.Random(number)
        content = json.dumps(malformed.odd_value(rng)).encode()
        (tmp_path / "a.json").write_bytes(mutated(content, rng) if rng.random() < 0.4 else content)
        readers.see(
            number, card=lambda: write_card(tmp_path / "a.safetensors", activation_text="x", sd_version="SD1", preferred_weight=1)
        )
        json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert readers.legal > 70 and readers.legal + readers.refused == 80  # what is no card of the webui's is refused


def test_jobs_and_their_order(tmp_path: Path, readers: Readers) -> None:
    entry: dict[str, Any] = {
        "format": 1, "settings": {"name": "cat", "data": ["x"]}, "queued": 1.0, "state": "finished", "step": 3, "curve": [1.0],
        "problems": [], "saved": "cat", "state_folder": "x", "loss": 0.5,
    }  # fmt: skip
    (tmp_path / "one").mkdir()
    for number in range(200):
        rng = random.Random(number)
        content = json.dumps(malformed.changed_somewhere(rng, entry)).encode()
        (tmp_path / "one" / JOB).write_bytes(mutated(content, rng) if rng.random() < 0.3 else content)
        order = json.dumps(malformed.changed_somewhere(rng, ["one", "two"])).encode()
        (tmp_path / ORDER).write_bytes(mutated(order, rng) if rng.random() < 0.3 else order)
        readers.see(number, load=lambda: Store(tmp_path).load())
    assert readers.legal == 200


def test_recordings(tmp_path: Path, readers: Readers) -> None:
    """Of sd-scripts' runs: what is let through has all that its steps need."""
    from safetensors import safe_open

    source, path = DATA / "mini-recording.safetensors", tmp_path / "a.safetensors"
    with safe_open(source, "pt") as file:
        told = dict(file.metadata())
    tensors = load_file(source)
    few = {key: value for key, value in tensors.items() if not key.startswith(("init/", "delta/")) or "layers_0_mlp_fc1" in key}
    names = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
    entries = {key: (names[value.dtype], list(value.shape), value.numpy().tobytes()) for key, value in few.items()}
    path.write_bytes(malformed.safetensors(entries, told))
    steps = len(load_recording(path).losses)

    def loaded() -> None:
        recording = load_recording(path)
        for step in range(len(recording.losses)):
            found = recording.group(f"step{step}/")
            assert len(found["latents"]) == len(recording.captions[step]) and found["noise"].shape == found["latents"].shape

    for number in range(150):
        rng = random.Random(number)
        changed, metadata = dict(entries), dict(told)
        if rng.random() < 0.5:
            key = rng.choice(["config", "captions", "losses", "sdxl"])
            given = json.loads(metadata.get(key, "false"))
            metadata[key] = rng.choice([json.dumps(malformed.changed_somewhere(rng, given)), rng.choice(malformed.ODD_TEXTS)])
        elif rng.random() < 0.5:
            metadata.pop(rng.choice(list(metadata)))
        else:
            key = rng.choice([key for key in changed if rng.random() < 0.2 or key.startswith("step")])
            if rng.random() < 0.5:
                del changed[key]
            else:
                shape = rng.choice([[], [2], [2, 4, 8, 16], [1, 4, 8, 16], [0]])
                changed[key] = ("F32", shape, malformed.numbers(rng, "F32", math.prod(shape), odd=True))
        content = malformed.safetensors(changed, metadata)
        path.write_bytes(mutated(content, rng) if rng.random() < 0.1 else content)
        readers.see(number, load=loaded)
    assert steps > 0 and readers.refused > 100


def test_tables_of_the_data_path(tmp_path: Path, readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    table = json.loads((DATA / "kohya-data.json").read_text())
    small = {key: value[:3] if isinstance(value, list) and key != "bucket_settings" else value for key, value in table.items()}
    path, pixels = tmp_path / "a.json", tmp_path / "a.safetensors"
    tokenizer = load_tokenizer()
    monkeypatch.setattr(replay_data_room, "load_tokenizer", lambda: tokenizer)  # a tenth of a second each time
    for number in range(150):
        rng = random.Random(number)
        content = json.dumps(malformed.changed_somewhere(rng, malformed.changed_somewhere(rng, small))).encode()
        path.write_bytes(mutated(content, rng) if rng.random() < 0.2 else content)
        shape = rng.choice([[4, 4, 3], [3], []])
        name = rng.choice(
            ["a.png|bucket 4x4 min 1 max 2 step 0", "a.png|fixed 64x64", "none.png|fixed 64x64", "0.png", "|", "a.png|x"]
        )
        pixels.write_bytes(malformed.safetensors({name: ("U8", shape, bytes(math.prod(shape)))}))
        readers.see(number, table=lambda: replay_data(path, None, None), pixels=lambda: replay_data(path, pixels, tmp_path))
    assert readers.refused > 100


def test_latents_on_disk(tmp_path: Path, readers: Readers) -> None:
    """What is not our own, whole and of these pixels is as if it were not there."""
    cache, image, pixels = LatentCache(nn.Linear(2, 2), SD1), tmp_path / "a.png", np.zeros((64, 64, 3), dtype=np.uint8)
    posterior = Posterior(torch.ones(4, 8, 8), torch.zeros(4, 8, 8))
    cache.keep(image, pixels, posterior)
    path = _path(image, cache._key(pixels))
    whole, found = path.read_bytes(), []
    for number in range(150):
        rng = random.Random(number)
        if number % 2:
            path.write_bytes(mutated(whole, rng))
        else:
            entries: malformed.Entries = {}
            for name in rng.choice([("mean", "logvar"), ("mean",), ("a", "b")]):
                dtype, shape = rng.choice(list(malformed.SIZES)), rng.choice([[4, 8, 8], [], [0], [4, 8]])
                entries[name] = (dtype, shape, malformed.numbers(rng, dtype, math.prod(shape), odd=True))
            path.write_bytes(malformed.safetensors(entries, rng.choice([None, {}, {"made_from": "x", "sha256": "y"}])))
        readers.see(number, load=lambda: found.append(cache.load(image, pixels)))
    assert readers.legal == 150
    assert all(torch.equal(kept.mean, posterior.mean) for kept in found if kept is not None) and found.count(None) > 140
