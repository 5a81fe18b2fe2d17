"""Uploads, samples and states in the webui's data folder are served by none of the webui's routes for files."""

from __future__ import annotations

import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from lib_lora.check import find_images
from lib_lora.config.groups import build_config
from lib_lora.data.folders import IMAGE_SUFFIXES
from lib_lora.data.hidden_names import given_name, given_stem, hidden_name
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.events import Sampled, StateSaved
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.jobs.hiding import hide_pictures
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from lib_lora.plan import make_plan
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.resume import data_fingerprint
from tests.conftest import small_config, write_picture
from tests.test_jobs import wait
from tests.test_queue import by_name, states, wait_for

PREVIEWS = {"png", "jpg", "jpeg", "webp", "gif"}  # `default_allowed_preview_extensions` of the webui 1.10.1


class WebuiLike(StandaloneHost):
    """Folders as in the webui, in a data folder that is served."""

    def __init__(self, checkpoint: Path, data: Path) -> None:
        super().__init__(checkpoint, data / "models" / "Lora")
        self.data = data

    def work_folder(self) -> Path:
        return self.data / ".train-lora" / "runs"

    def hides_pictures(self) -> bool:
        return True


def thumb_serves(filename: str, allowed: Path, samples_format: str) -> bool:
    """As `modules.ui_extra_networks.fetch_file` decides: by the unchanged beginning of the path, and by its ending."""
    if not os.path.isfile(filename):  # noqa: PTH113 - as there
        return False
    if allowed.absolute() not in Path(filename).absolute().parents:
        return False
    return os.path.splitext(filename)[1].lower()[1:] in PREVIEWS | {samples_format}  # noqa: PTH122


def file_serves(filename: str, allowed: Path) -> bool:
    """As gradio 3.41.2's file route decides: nothing with a part that starts with a dot, else what is below an allowed path."""
    path = Path(filename)
    return path.exists() and not any(part.startswith(".") for part in path.parts) and path.is_relative_to(allowed)


def served(data: Path) -> list[Path]:
    """All files below the private folder that somebody without a login could have."""
    lora = data / "models" / "Lora"
    found = []
    for path in (path for path in (data / ".train-lora").rglob("*") if path.is_file()):
        inside = path.relative_to(data)
        ways = [str(path), f"{lora}/../../{inside}", f"{lora}/{'../' * len(lora.parts)}{path}"]
        formats = ("png", "jpg", "webp", "avif", "bmp", "tiff", "gif", "jxl")
        if any(thumb_serves(way, lora, form) for way, form in itertools.product(ways, formats)) or file_serves(str(path), data):
            found.append(path)
    return found


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_nothing_that_a_run_leaves_is_served(shallow_checkpoint: Path, tmp_path: Path) -> None:
    """Dropped pictures, samples, states and latents of a job, while it is there, when it went on, and after it was repeated."""
    data, private = tmp_path / "data", tmp_path / "data" / ".train-lora"
    host = WebuiLike(shallow_checkpoint, data)
    dataset = Catalogue(private / "uploads" / "datasets").create("cats")
    for number, name in enumerate(["a.png", "B.JPG", "c.jpeg", "d.webp", "e.BmP", "x" * 190 + ".png"]):
        dataset.add(name, write_picture(tmp_path / "up" / str(number) / "stored.png", 64, 64, seed=number))
    (tmp_path / "a.txt").write_text("a cat")
    dataset.add("a.txt", tmp_path / "a.txt")
    queue = Queue(Runner(host), Store(private / "queue", private / "uploads"))
    settings = {"data": [str(dataset.folder)], "cache_latents_to_disk": True, "save_state": True, "save_every_n_steps": 2, "steps": 4,
                "sample_every_n_steps": 2, "sample_prompts": "ohwx --s 1 --w 64 --h 64"}  # fmt: skip
    job = queue.submit(small_config(tmp_path, data, **settings)).job
    assert job is not None and wait(job)["problems"] == []
    wait_for(lambda: states(queue)["blob"] == "finished")
    kept = [path for path in private.rglob("*") if path.is_file()]
    assert len([path for path in kept if "queue" in path.parts and path.suffix.endswith(("_", "-"))]) == 6
    (sample,) = [path for path in (job.sample(4, 0),) if path]
    assert sample.is_file() and sample.read_bytes()[1:4] == b"PNG" and len([p for p in kept if p.parent == sample.parent]) == 2
    assert any(path.suffix == ".tensors" for path in kept) and any(path.parent.name == ".train-lora-latents" for path in kept)
    assert served(data) == [] and by_name(queue, "blob").state == "finished"
    repeated = small_config(tmp_path, data, **{**settings, "data": by_name(queue, "blob").settings["data"]}, name="again")
    again = queue.submit(repeated).job
    assert again is not None and wait(again)["problems"] == []
    assert served(data) == []
    write_picture(private / "queue" / "seen" / "x.png")
    assert [path.name for path in served(data)] == ["x.png"], "what is not hidden is served: the rule above is one"


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.JPEG", "a.webp", "a.bmp", "猫.WebP", ".png.png", "a.b.gif",
                                  "x" * 251 + ".png", "a.tif", "a.tiff", "a.avif", "a.jxl", "a.svg", "a.heic"])  # fmt: skip
def test_hidden_names_hold_the_given_ones(name: str) -> None:
    hidden = hidden_name(name)
    assert given_name(Path("b") / hidden) == name and len(hidden.encode()) == len(name.encode())
    assert Path(hidden).suffix.lower() not in IMAGE_SUFFIXES and hidden_name(hidden) == hidden
    assert given_stem(Path(hidden)) == Path(name).stem


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a", "png", ".png", "a_", "a.json", "a.safetensors", "a._", "a.x_"])
def test_other_names_stay(name: str) -> None:
    assert given_name(Path(name)) == name and (hidden_name(name) == name or name == ".png")


def test_a_folder_with_hidden_names_is_the_same_folder(tmp_path: Path) -> None:
    """Order, captions by stem and by name, masks, sentences and fingerprint, so that a state goes on after the names were hidden."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for number, name in enumerate(["b.png", "a-1.png", "a.png", "a_1.JPG", "c.webp"]):
        write_picture(photos / name, 64, 64, seed=number)
        write_picture(masks / f"{Path(name).stem}.png", 64, 64)
    (photos / "b.txt").write_text("a bird")
    settings = {"data": [str(photos)], "filename_captions": True, "masked_loss": True, "mask_data": str(masks), "trigger": "ohwx"}
    config = build_config({**settings, "resolution": 64, "min_bucket_reso": 64, "name": "x"})

    def seen() -> tuple[list[Any], str]:
        dataset = find_images(config)
        assert dataset.problems == ()
        return [(given_name(s.path), s.caption, s.mask and s.mask.stem) for s in dataset.samples], data_fingerprint(
            make_plan(config, dataset)
        )

    before = seen()
    assert hide_pictures(photos) == 5 and seen() == before and hide_pictures(photos) == 0
    (photos / "b.pn_").write_bytes(b"no picture")
    assert find_images(config).problems == ("Image 'b.png' is not a readable PNG, JPEG, WEBP or BMP file; replace or remove it.",)


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_a_state_of_before_goes_on_with_pictures_that_were_hidden_since(
    shallow_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    """Of 0.1.0: pictures and samples under their own names, in the folders that they have now."""
    data = tmp_path / "data"
    drop = data / ".train-lora" / "queue" / "0123456789ab" / "drop-1"
    drop.mkdir(parents=True)
    for path in (photos / "3_blob").iterdir():
        (drop / path.name).write_bytes(path.read_bytes())
    host = WebuiLike(shallow_checkpoint, data)
    old = write_picture(host.work_folder() / "blob" / "samples" / "blob_00000001_00_42.png")
    first = [
        *train(
            small_config(drop, data, steps=2, save_state=True, sample_at_first=True, sample_prompts="ohwx --s 1"),
            host,
            RunControl(),
        )
    ]
    assert served(data) and any(isinstance(event, StateSaved) for event in first)
    assert hide_pictures(data / ".train-lora") >= 2 and served(data) == [] and not old.exists()
    again = small_config(drop, data, steps=3, save_state=True, resume="blob", overwrite=True, sample_every_n_steps=3,
                         sample_prompts="ohwx --s 1")  # fmt: skip
    assert any(isinstance(event, Sampled) for event in train(again, host, RunControl())) and served(data) == []


def test_names_that_cannot_be_changed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    write_picture(tmp_path / "a.png")
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert hide_pictures(tmp_path) == 0 and "1 images in" in caplog.text and (tmp_path / "a.png").is_file()
