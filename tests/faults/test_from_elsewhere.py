"""Cases 51, 52, 53, 55, 59, 66: foreign files in whole runs: what is wrong is reported, and the next run is unaffected."""

from __future__ import annotations

import io
import json
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from lib_lora.errors import LoraFileError
from lib_lora.events import Finished
from lib_lora.files.lora_file import read
from lib_lora.files.state_file import TENSORS, VALUES
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_store import JOB, ORDER, Store
from lib_lora.jobs.runner import Runner
from lib_lora.kohya.importing import import_file
from tests.faults.writes import outside, writes
from tests.house import House
from tests.test_bounds import Canary, as_safetensors, mutated

Figure = Callable[[str], None]


def over(queue: Queue) -> None:
    """Wait for the end of what runs."""
    if queue.runner._thread is not None:
        queue.runner._thread.join()


@pytest.mark.case(51)
@pytest.mark.parametrize("option", ["network_weights", "base_weights", "resume"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
def test_a_pickle_is_told_and_never_run(option: str, suffix: str, house: House, quick: Any, tmp_path: Path) -> None:
    """A pickle that runs something, as LoRA to go on from, LoRA below, or state: one sentence, and nothing is run."""
    canary, path = tmp_path / "canary", tmp_path / f"a{suffix}"
    bird = path
    if option == "resume":
        house.run(quick(save_every_n_steps=1, save_state=True))
        path = max((house.host.work_folder() / "blob").glob("*-state"))
        bird = path / (VALUES if suffix == ".pt" else TENSORS)
    torch.save({"a": Canary(canary)}, bird)
    run = house.run(quick(**{option: [str(path)] if option == "base_weights" else str(path)}, steps=3, overwrite=True))
    assert len(run.told) == 1 and not run.of(Finished) and not canary.exists(), run.told
    torch.load(bird.rename(tmp_path / "bird.pt"), weights_only=False)
    assert canary.exists(), "the bird sings when it is unpickled"
    if option == "resume":  # what the test damaged, and no run
        path.rename(tmp_path / path.name)


def archive(name: str, content: bytes) -> bytes:
    """A zip file of one entry."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return made.getvalue()


@pytest.mark.case(52)
def test_archives_in_every_place(house: House, quick: Any, photos: Path, tmp_path: Path) -> None:
    """A bomb, one within another, one with ../ in its names, as image, caption, LoRA and settings: named, nothing is unpacked."""
    bomb = archive("a", bytes(64 * 2**20))
    contents = {"bomb": bomb, "nested": archive("b.zip", bomb), "slip": archive("../../escaped.png", b"x")}
    process = psutil.Process()
    for name, content in contents.items():
        places = {
            "data": photos / "3_blob" / f"{name}.png",
            "caption": photos / "3_blob" / "0.txt",
            "network_weights": tmp_path / f"{name}.safetensors",
        }
        for what, path in places.items():
            before, memory = path.read_bytes() if path.exists() else None, process.memory_info().rss
            path.write_bytes(content)
            with writes() as seen:
                run = house.run(quick(**({"network_weights": str(path)} if what == "network_weights" else {})))
            assert len(run.told) == 1 and path.name in run.told[0] and not run.events, (name, what, run.told)
            assert outside(seen) == [] and process.memory_info().rss - memory < 30 * 2**20
            path.unlink()
            if before is not None:
                path.write_bytes(before)
    (photos / "3_blob" / "bomb.zip").write_bytes(bomb)
    assert house.run(quick()).of(Finished) and not list(tmp_path.parent.glob("escaped*"))


def entry(offsets: tuple[int, int] = (0, 4), shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": list(offsets)}


def double_keys() -> bytes:
    one = json.dumps(entry())
    text = f'{{"a": {one}, "a": {one}}}'.encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a header of a terabyte": lambda: (1 << 40).to_bytes(8, "little") + b"{}",
    "a header of 99 MB": lambda: (99 * 2**20).to_bytes(8, "little") + b"{" + b" " * (99 * 2**20 - 2) + b"}",
    "100,000 tensors": lambda: as_safetensors({f"t{n}": entry((4 * n, 4 * n + 4)) for n in range(100_000)}, 400_000),
    "a shape that overflows": lambda: as_safetensors({"a": entry(shape=(2**40, 2**40))}, 4),
    "the same key twice": double_keys,
    "a number that is none": lambda: as_safetensors({"a": entry(), "b": float("nan")}, 4),
    "metadata that is a list": lambda: as_safetensors({"a": entry(), "__metadata__": [1]}, 4),
    "metadata of numbers": lambda: as_safetensors({"a": entry(), "__metadata__": {"ss_network_dim": 4}}, 4),
}  # fmt: skip


@pytest.mark.case(53)
@pytest.mark.parametrize("option", ["network_weights", "base_weights"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_safetensors(
    kind: str, option: str, house: House, quick: Any, tmp_path: Path, long: bool, figure: Figure
) -> None:
    """Headers of a terabyte and of 99 MB, 100,000 tensors, overflowing shapes, double keys, NaN, odd metadata: one sentence, within 200 MB."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[kind]())
    memory = psutil.Process().memory_info().rss
    run = house.run(quick(**{option: [str(path)] if option == "base_weights" else str(path)}))
    assert psutil.Process().memory_info().rss - memory < 200 * 2**20
    assert len(run.told) == 1 and "a.safetensors" in run.told[0] and not run.of(Finished), run.told
    if long and kind == "100,000 tensors":
        seconds = min(looked_at(path) for _ in range(3))
        figure(f"{kind} are refused in {seconds:.1f} s of processor time")
        assert seconds < 1


def looked_at(path: Path) -> float:
    """Seconds of processor time until a file is refused."""
    started = time.process_time()
    with pytest.raises(LoraFileError):
        read(path)
    return time.process_time() - started


@pytest.mark.case(53)
def test_fuzzed_loras(house: House, quick: Any, tmp_path: Path, long: bool, figure: Figure) -> None:
    """A LoRA with flipped, exchanged, lost and added bytes, read as the start of a run: a sentence, or a LoRA; some in whole runs."""
    whole = house.run(quick(steps=1)).of(Finished)[0].path.read_bytes()
    rng, path, count, refused = random.Random(53), tmp_path / "a.safetensors", 10_000 if long else 500, 0
    for number in range(count):
        path.write_bytes(mutated(whole, rng, places=4000))
        try:
            read(path)
        except LoraFileError as error:
            assert str(path) in str(error)
            refused += 1
        if number % (count // 5) == 0:
            house.run(quick(network_weights=str(path), overwrite=True, steps=1))
    assert refused > count // 4
    figure(f"{count} files, {refused} refused")


@pytest.mark.case(55)
def test_a_run_with_a_strangers_settings(house: House, quick: Any, tmp_path: Path) -> None:
    """Settings of kohya with paths, odd values and unknown keys, taken into a run: the report names them, no path of theirs is written or read."""
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    strange = {
        "output_dir": str(tmp_path / "elsewhere"), "logging_dir": "/etc/escaped", "output_name": "../../escaped", "train_data_dir": "/etc",
        "network_weights": str(secret), "resume": str(secret), "mask_data": "/etc", "reg_data": ["/etc"], "base_weights": [str(secret)],
        "sample_prompts": str(secret), "pretrained_model_name_or_path": str(secret), "min_snr_gamma": 5, "unknown": [[[1]]],
        "epoch": 1e309, "learning_rate": "NaN", "max_train_steps": -1, "network_dim": [4], "__proto__": {"resume": str(secret)},
    }  # fmt: skip
    path = tmp_path / "a.json"
    for ours in ({}, {"gradient_accumulation_steps": 1, "unet_lr": 1e-3, "rank": 1, "data": ["/etc"]}):
        path.write_text(json.dumps({**strange, **ours}))
        found = import_file(path).flat
        assert found["min_snr_gamma"] == 5 and {*found} <= {"min_snr_gamma", *ours} - {"data"}, found
        with writes() as seen:
            run = house.run(quick(**found, overwrite=True))
        assert run.of(Finished) and outside(seen, house.host.lora_folder(), house.host.work_folder().parent) == []


@pytest.mark.case(59)
def test_jobs_edited_by_hand(house: House, quick: Any, tmp_path: Path) -> None:
    """A job and the order of jobs damaged on the disk: shown as broken, kept, and the next job trains."""
    folder = tmp_path / "jobs"
    queue = Queue(Runner(house.host), Store(folder))
    for name in ("one", "two"):
        queue.submit(quick(name=name, steps=1))
        over(queue)
    victim = folder / queue.entries[0].id / JOB
    for content in (
        "{",
        "[" * 100_000,
        '{"format": 1, "settings": {"data": ["/etc"]}, "queued": "x"}',
        "\0" * 100,
        "x" * (5 * 2**20),
    ):
        victim.write_text(content)
        (folder / ORDER).write_text(content)
        queue = Queue(Runner(house.host), Store(folder))
        assert sorted(entry.state for entry in queue.entries) == ["broken", "finished"] and victim.read_text() == content
        house.told += [queue.trouble, *next(entry.problems for entry in queue.entries if entry.state == "broken")]
    queue.submit(quick(name="three", steps=1))
    over(queue)
    assert (house.host.lora_folder() / "three.safetensors").is_file() and victim.read_text() == content


@pytest.mark.case(66)
def test_names_that_are_taken(house: House, quick: Any) -> None:
    """Without Overwrite a LoRA of that name, in other letters or deeper down, is refused with a free one; with it card and notes are kept."""
    lora = house.run(quick(name="cat", steps=1)).of(Finished)[0].path
    card = lora.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "notes": "mine", "preferred weight": 0.7}))
    picture = lora.with_suffix(".png")
    before = {path.name: path.read_bytes() for path in lora.parent.iterdir() if path.is_file()}
    for name in ("cat", "Cat", "CAT"):
        run = house.run(quick(name=name))
        assert len(run.told) == 1 and "is taken; use " in run.told[0] and not run.events
    assert {path.name: path.read_bytes() for path in lora.parent.iterdir() if path.is_file()} == before
    assert house.run(quick(name="cat", overwrite=True, seed=9)).of(Finished)[0].path == lora
    kept = json.loads(card.read_text())
    assert lora.read_bytes() != before["cat.safetensors"] and (kept["notes"], kept["preferred weight"]) == ("mine", 0.7)
    assert not list(lora.parent.glob("*.bak")) and not picture.exists()
