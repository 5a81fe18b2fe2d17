"""Wrong input: one sentence each, all at once, nothing touched, and the webui still generates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.e2e import client, pictures
from tests.e2e.server import Server
from tests.e2e.tab import Tab

pytestmark = pytest.mark.e2e

GOOD = {
    "name": "bad input", "trigger": "ohwx", "steps": 4, "resolution": 128, "rank": 4, "unet_lr": "0.0001", "min_bucket_reso": 64,
    "batch_size": 1, "epochs": 10,
}  # fmt: skip
# number fields take what is typed; sliders set it to the nearest that they have
OUT_OF_BOUNDS: list[tuple[dict[str, Any], str]] = [
    ({"rank": -1}, "Rank (rank): got -1, must be a whole number from 1 to 1024"),
    ({"rank": 10**9}, "Rank (rank): got 1000000000, must be a whole number from 1 to 1024"),
    ({"epochs": 10**9, "steps": 0}, "Epochs (epochs): got 1000000000, must be a whole number from 1 to 100000"),
]
SLIDERS = (("resolution", 7, "64"), ("resolution", 63, "64"), ("resolution", 99999, "2048"), ("batch_size", 10**6, "64"))


@pytest.fixture
def nothing_changes(server: Server, lora: str) -> Iterator[None]:
    """Weights, settings, files and pictures are the same at the end of the test."""
    assert client.lists(server, lora)
    picture = client.generate(server, client.PROMPT)
    before, files = client.fingerprint(server), client.files_in(server.data / "models")
    yield
    server.post("/e2e/heal")
    assert client.changes(before, client.fingerprint(server)) == []
    assert client.files_in(server.data / "models") == files
    assert np.array_equal(client.generate(server, client.PROMPT), picture)


@pytest.fixture
def bad_folders(tmp_path: Path) -> dict[str, Path]:
    """Folders that cannot be trained on, by what is wrong with them."""
    folders = {name: tmp_path / name for name in ("empty", "unreadable", "uncaptioned")}
    folders["empty"].mkdir()
    pictures.write_photos(folders["unreadable"], ("cat",))
    (folders["unreadable"] / "broken.jpg").write_text("this is no picture")
    pictures.write_photos(folders["uncaptioned"], ("cat", "rocket"))
    return {**folders, "missing": tmp_path / "missing"}


@pytest.mark.case(57)
@pytest.mark.usefixtures("nothing_changes")
def test_one_wrong_value_one_sentence(tab: Tab, photos: Path, bad_folders: dict[str, Path], lora: str) -> None:
    """In one page, one after the other, as a person would correct them."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": bad_folders["empty"]}, "contains no PNG, JPEG, WEBP or BMP images"),
        ({"data": bad_folders["missing"]}, "does not exist or is not a folder"),
        ({"data": bad_folders["unreadable"]}, "'broken.jpg' is not a readable PNG, JPEG, WEBP or BMP file"),
        ({"data": bad_folders["uncaptioned"], "trigger": ""}, "'rocket.jpg' has no caption; add rocket.txt next to it"),
        ({"data": ""}, "Image folder (data): is empty"),
        ({"name": ""}, "Name (name): is empty"),
        ({"name": "folder/cat"}, "must be a plain file name without a path"),
        ({"name": lora}, f"{lora!r} is taken; use '{lora}-2'"),
        ({"rank": 0}, "Rank (rank): got 0, must be a whole number from 1 to 1024"),
        ({"unet_lr": "NaN"}, "Learning rate, U-Net (unet_lr): got 'NaN', must be a number from 0 to 10"),
        ({"resolution": 500}, "Resolution (resolution): got 500, must be a multiple of 8"),
        *OUT_OF_BOUNDS,
    ]
    tab.fill(data=photos, **GOOD)
    for wrong, sentence in cases:
        tab.fill(**wrong)
        told = tab.refused()
        assert len(told) == 1 and sentence in told[0], f"{wrong} is answered by {told}"
        tab.fill(**{name: {"data": photos, **GOOD}[name] for name in wrong})
    tab.shot("6-one-problem")
    for name, typed, becomes in SLIDERS:
        tab.fill(**{name: typed})
        assert tab.value(name) == becomes, (name, typed)


@pytest.mark.usefixtures("nothing_changes")
def test_all_problems_at_once(tab: Tab, bad_folders: dict[str, Path]) -> None:
    """Illegal values, rules, name and images in one answer; the report tells of the images before Train is pressed."""
    tab.fill(data=bad_folders["unreadable"], **GOOD)
    tab.wait_for_report("'broken.jpg' is not a readable")
    tab.fill(name="", rank=0, unet_lr="NaN", resolution=500)
    told = tab.refused()
    for sentence in ("Rank (rank)", "(unet_lr): got 'NaN'", "Resolution (resolution): got 500", "Name (name)", "'broken.jpg'"):
        assert len([line for line in told if sentence in line]) == 1, f"{sentence} is not told once in {told}"
    assert len(told) == 5
    tab.shot("7-all-problems")


@pytest.mark.usefixtures("nothing_changes")
def test_refusal_does_not_repeat_an_older_failure(tab: Tab, photos: Path, bad_folders: dict[str, Path]) -> None:
    """What the last run failed of is not told again below the answer to another request."""
    tab.fill(data=bad_folders["missing"], **GOOD)
    tab.refused()
    tab.fill(data=photos, rank=0)
    told = tab.refused()
    tab.page.wait_for_timeout(1500)  # the progress is renewed meanwhile
    assert tab.page.locator("#train_lora_message.prose li, #train_lora_progress li").all_inner_texts() == told


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("is_sd3", "is SD3; only SD 1.x, SD 2.x, SDXL"),
        ("is_ssd", "is SSD-1B; only SD 1.x, SD 2.x, SDXL"),
        ("lowvram", "runs with --lowvram"),
        ("medvram", "runs with --medvram"),
        ("no checkpoint", "No checkpoint is loaded"),
        ("replaced unet", "The U-Net is replaced by '[TRT] tiny'"),
    ],
)
def test_unsupported_model(server: Server, photos: Path, fault: str, sentence: str) -> None:
    """Said before the model is touched, together with what is wrong in the form."""
    client.break_(server, fault)
    job = client.train(server, photos, "")
    assert job["state"] == "failed" and job["step"] == 0
    assert len(job["problems"]) == 2, job["problems"]
    assert len([problem for problem in job["problems"] if sentence in problem]) == 1, job["problems"]


def test_second_training_beside_the_queue_is_refused(server: Server, photos: Path) -> None:
    """The runner itself knows one at a time; the sentence names the one that runs, which is not disturbed."""
    client.break_(server, "slow steps")
    first = client.begin(server, photos, "first")
    answer = requests.post(
        f"{server.url}/e2e/train", json={**client.SMALL_RUN, "data": str(photos), "name": "second"}, timeout=30
    )
    assert answer.status_code == 422
    assert answer.json()["detail"] == ["A run of 'first' is active; wait for it, or stop it."]
    assert client.wait_for_end(server, first)["saved"] == "first"
    assert "second.safetensors" not in client.files_in(server.lora_folder)
