"""Masks over HTTP: sent, asked for, made and removed; and what the listing says of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lib_lora.data.decoder_process import Readers
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.looked import Looks
from lib_lora.ui.api.listing import Look, listing
from lib_lora.ui.api.masks import MaskRoutes
from lib_lora.ui.api.serving import Routes
from lib_lora.ui.guard import Guard
from tests.conftest import write_picture

LOCAL = "http://127.0.0.1:7860"


class Site:
    """A dataset of two images behind the routes."""

    def __init__(self, folder: Path, readers: Readers, **guard: Any) -> None:
        self.catalogue = Catalogue(folder / ".private" / "datasets")
        self.dataset = self.catalogue.create("cats")
        for number in range(2):
            self.dataset.add(f"{number}.png", write_picture(folder / f"{number}.png", 40, 30, seed=number))
        app = FastAPI()
        app.auth = None  # type: ignore[attr-defined] # as on gradio's
        MaskRoutes(self.catalogue, readers).add_to(Routes(app, Guard(trust_everybody=True, **guard)))
        self.client = TestClient(app, base_url=LOCAL)

    def path(self, image: int = 0, rest: str = "mask") -> str:
        return f"/lora-train/v1/datasets/{self.dataset.id}/images/{self.dataset.entries()[0][image].id}/{rest}"

    def mask(self, **query: str) -> Any:
        answer = self.client.get(self.path(), params=query)
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(answer.content)) as mask:
            return np.asarray(mask)

    def listed(self, config: dict[str, Any] | None = None) -> dict[str, Any]:
        looks = Looks(self.dataset)
        looks.renew(self.dataset.entries()[0])
        assert looks.wait(60)
        return listing(self.dataset, looks, Look.of({"settings": json.dumps(config)} if config is not None else {}))


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, readers: Readers) -> Site:
    return Site(tmp_path, readers)


def grey() -> tuple[Any, bytes]:
    """A mask, and its PNG."""
    mask = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    return mask, content.getvalue()


def told(answer: Any, status: int) -> str:
    assert answer.status_code == status
    (problem,) = answer.json()["problems"]
    return str(problem["text"])


def test_a_mask_is_sent_asked_for_inverted_and_removed(site: Site) -> None:
    mask, content = grey()
    assert told(site.client.get(site.path()), 404) == "This image has no mask."
    assert site.client.put(site.path(), content=content).json() == {}
    assert np.array_equal(site.mask(), mask)
    assert site.client.post(site.path(), json={"how": "inverted"}).json() == {}
    assert np.array_equal(site.mask(), 255 - mask)
    assert site.client.post(site.path(), json={"how": "filled"}).json() == {} and (site.mask() == 255).all()
    assert site.client.delete(site.path()).json() == {}
    assert site.client.get(site.path()).status_code == 404


def test_what_cannot_be_a_mask_is_one_sentence(site: Site) -> None:
    small = io.BytesIO()
    Image.new("L", (30, 40), 255).save(small, "PNG")
    said = told(site.client.put(site.path(), content=small.getvalue()), 422)
    assert said == "The mask of '0.png' is 30x40, but its image is 40x30; make them the same size."
    assert "not a readable PNG" in told(site.client.put(site.path(), content=b"<html>"), 422)
    assert "must be one of inverted, transparency, filled" in told(site.client.post(site.path(), json={"how": "magic"}), 422)
    assert "has no transparent part" in told(site.client.get(site.path(), params={"from": "transparency"}), 422)
    gone = site.path().replace(site.dataset.entries()[0][0].id, "0" * 16)
    assert "does not exist any more" in str(site.client.put(gone, content=grey()[1]).json()["problems"])
    assert site.client.get(site.path()).status_code == 404


def test_the_guard_is_asked_first(tmp_path: Path, readers: Readers) -> None:
    site = Site(tmp_path, readers, api_users={"a": "b"})
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert site.client.request(method, site.path()).status_code == 401
    assert site.client.get(site.path(rest="view")).status_code == 401


def test_the_listing_tells_of_masks(site: Site) -> None:
    none = site.listed({"masked_loss": False})
    assert none["masks"] == {"count": 0, "covered": None, "unused": ""}
    assert [image["has_mask"] for image in none["images"]] == [False, False]
    half = io.BytesIO()
    Image.fromarray(np.repeat([[0], [255]], 15, axis=0).repeat(40, axis=1).astype(np.uint8)).save(half, "PNG")
    site.client.put(site.path(1), content=half.getvalue())
    found = site.listed({"masked_loss": False})
    assert found["masks"]["count"] == 1 and found["masks"]["covered"] == 0.5
    assert found["masks"]["unused"] == "Masks are not used: Mask images (masked_loss) is off; turn it on in the form."
    assert [image["covered"] for image in found["images"]] == [None, 0.5]
    assert site.client.get(f"/lora-train/v1/{found['images'][1]['mask']}").status_code == 200
    for config, unused in (
        ({"masked_loss": True}, ""),
        ({"masked_loss": True, "alpha_mask": True}, "Transparency is a mask"),
        (None, ""),
    ):
        said = site.listed(config)["masks"]["unused"]
        assert unused in said and bool(said) == bool(unused)


def test_the_view_is_upright_and_leaves_nothing(tmp_path: Path, readers: Readers) -> None:
    site, exif = Site(tmp_path, readers), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2000, 1000), "red").save(tmp_path / "up.jpg", exif=exif)
    site.dataset.add("2.jpg", tmp_path / "up.jpg")
    answer = site.client.get(site.path(2, "view"))
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as shown:
        assert shown.format == "JPEG" and shown.size == (800, 1600)
    assert list((site.dataset.folder.parent / "arriving").iterdir()) == []


def test_no_card_tells_of_a_missing_caption(site: Site) -> None:
    found = site.listed()
    assert found["counts"]["no_caption"] == 2, "the filter does"
    assert not any("caption" in notice for image in found["images"] for notice in image["notices"])
