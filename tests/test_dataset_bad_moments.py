"""What happens to a dataset amid something else: a disk that is full just then, a deletion, another page, another program."""

from __future__ import annotations

import errno
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from PIL import Image  # noqa: E402

from lib_lora.data.edits import FILE, MASKS  # noqa: E402
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.datasets.history import MOST_UNDONE  # noqa: E402
from tests.api import Api, Connection, app_in, named, packed, picture  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.house import assert_one_sentence  # noqa: E402

SETS = "sets"


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(app_in(tmp_path / "webui"), tmp_path / "webui")


@pytest.fixture
def cats(api: Api) -> str:
    return api.made_with_captions()


def full(*given: Any, **more: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/private/secret/file")


def grey(width: int = 96, height: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), 200).save(file, "PNG")
    return file.getvalue()


def folders(api: Api) -> set[str]:
    return {path.relative_to(api.folder).as_posix() for path in (api.folder / SETS).rglob("*") if "looked" not in path.parts}


# --- a full disk


@pytest.mark.parametrize("place", ["catalogue.write_atomically", "catalogue.link_or_copy"])
def test_a_dataset_is_made_whole_or_not_at_all(place: str, api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders(api)
    monkeypatch.setattr(f"lib_lora.datasets.{place}", full)
    asked = [f"datasets/{cats}/duplicate"] + (["datasets"] if "write" in place else [])
    for path in asked:
        told = api.refused(507, "POST", path, {"name": "new"})
        assert_one_sentence(told)
        assert "No space left" in told and "/private" not in told and str(api.folder) not in told
    assert folders(api) == before
    assert [found["name"] for found in api.ask("GET", "datasets")["datasets"]] == ["cats"]


def test_an_image_is_removed_whole_or_not_at_all(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = (f"datasets/{cats}/images/{image}" for image in api.ids(cats).values())
    api.ask("PATCH", path, {"caption": "typed"})
    before = api.files()
    with monkeypatch.context() as patch:
        patch.setattr("lib_lora.datasets.image_set.write_atomically", full)
        assert "No space left" in api.refused(507, "DELETE", path)
        assert api.files() == before
        api.ask("DELETE", other)  # nothing is to be written for it, so it makes room
    assert api.captions(cats) == {"0.png": "typed"}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert "No space left" in api.refused(507, "DELETE", path)
    assert api.captions(cats) == {"0.png": "typed"}
    api.ask("DELETE", path)
    assert not any("0." in file for file in api.files())


def test_several_values_are_set_together_or_not_at_all(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    before, written = api.files(), []

    def second_fails(*given: Any) -> None:
        written.append(given)
        if len(written) > 1:
            full()
        from lib_lora.files.atomic import write_atomically

        write_atomically(*given)

    with monkeypatch.context() as patch:
        patch.setattr("lib_lora.datasets.image_set.write_atomically", second_fails)
        api.ask("PATCH", path, {"caption": "new", "crop": [0, 0, 20, 20], "left_out": True})
    assert len(written) == 1
    assert api.ask("POST", f"datasets/{cats}/undo")["undone"] and api.files() == before, "and they are undone together"


def test_a_disk_that_is_full_at_the_last_move_takes_nothing(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders(api)
    for name, content in (("a.png", picture(seed=5)), ("a.txt", b"x"), ("a.zip", packed({"a.png": picture(seed=5)}))):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            told = api.refused(507, "POST", f"datasets/{cats}/files", content, params=named(name))
        assert "No space left" in told and "/private" not in told
        assert folders(api) - before <= {f"{SETS}/{cats}/arriving"}


def test_a_zip_that_fails_leaves_no_masks(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed({"10_cat/a.png": picture(seed=5), "masks/10_cat/a.png": grey()})
    fresh = api.made("fresh")
    before = api.files()
    with monkeypatch.context() as patch:
        patch.setattr("lib_lora.datasets.image_set.write_atomically", full)
        assert "No space left" in api.refused(507, "POST", f"datasets/{fresh}/files", content, params=named("a.zip"))
    assert api.files() == before
    api.upload(fresh, "a.zip", content)
    assert api.get(fresh)["images"][0]["has_mask"]


# --- deleted meanwhile


ARRIVING: list[tuple[str, str, bytes]] = [
    ("POST", "files?name=a.png", picture(400, 400, seed=5)), ("POST", "files?name=a.txt", b"x" * 4000),
    ("POST", "files?name=a.zip", packed({"a.png": picture(400, 400, seed=5)})), ("PUT", "images/{}/mask", grey() + bytes(4000)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rest", "content"), ARRIVING, ids=["image", "caption", "zip", "mask"])
def test_a_dataset_that_is_deleted_during_an_upload_stays_away(
    method: str, rest: str, content: bytes, api: Api, cats: str
) -> None:
    path = f"datasets/{cats}/{rest.format(api.ids(cats)['0.png'])}"

    def messages() -> Iterator[dict[str, Any]]:
        yield {"type": "http.request", "body": content[:2000], "more_body": True}
        api.ask("DELETE", f"datasets/{cats}")
        yield {"type": "http.request", "body": content[2000:], "more_body": False}

    asked = Connection(api.client.app, method, path).sends(messages())
    (problem,) = json.loads(asked.content)["problems"]
    assert asked.status == 404 and "was deleted meanwhile" in problem["text"]
    assert folders(api) == set() and api.ask("GET", "datasets")["datasets"] == []


def test_a_dataset_whose_folder_is_taken_away_is_told(api: Api, cats: str, tmp_path: Path) -> None:
    image = api.ids(cats)["0.png"]
    images, away = api.folder / SETS / cats / "images", tmp_path / "away"
    images.rename(away)
    for method, path, body in (
        ("GET", "", None), ("POST", "/export", {}), ("POST", "/undo", {}), ("PATCH", f"/images/{image}", {"caption": "x"}),
        ("POST", "/files?name=a.png", picture()), ("GET", f"/images/{image}/view", None), ("POST", "/captioning", {}),
    ):  # fmt: skip
        assert "does not exist any more" in api.refused(404, method, f"datasets/{cats}{path}", body)
    away.rename(images)
    assert api.captions(cats) == {"0.png": "a cat, tag0", "1.png": "a cat, tag1"}


# --- Undo


def test_undo_is_of_the_change_that_the_page_shows(api: Api, cats: str) -> None:
    ids = api.ids(cats)
    api.ask("PATCH", f"datasets/{cats}/images/{ids['0.png']}", {"caption": "mine"})
    shown = api.get(cats)["undo_number"]
    api.ask("PATCH", f"datasets/{cats}/images/{ids['1.png']}", {"caption": "theirs"})
    for wrong in (shown, 0, 10**9):
        told = api.refused(409, "POST", f"datasets/{cats}/undo", {"number": wrong})
        assert "another page" in told
    assert api.captions(cats) == {"0.png": "mine", "1.png": "theirs"}
    assert api.ask("POST", f"datasets/{cats}/undo", {"number": api.get(cats)["undo_number"]})["undone"] == "caption of 1.png"
    for wrong in ("1", 1.5, True, []):
        assert "'number'" in api.refused(422, "POST", f"datasets/{cats}/undo", {"number": wrong})
    api.ask("POST", f"datasets/{cats}/undo", {"number": shown})
    assert api.get(cats)["undo_number"] == 0 and api.captions(cats)["0.png"] == "a cat, tag0"


def test_undo_keeps_what_another_program_has_changed(api: Api, cats: str) -> None:
    """Of two that share the data folder."""
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    api.ask("PATCH", path, {"left_out": True})
    api.ask("PATCH", path, {"caption": "mine"})
    other = Catalogue(api.folder / SETS).get(cats)
    other.change_image(other.entries()[0][0].id, {"caption": "theirs"})
    told = api.refused(409, "POST", f"datasets/{cats}/undo")
    assert "another program has changed '0.png'" in told and api.captions(cats)["0.png"] == "theirs"


def test_a_removed_image_leaves_nothing_to_the_next_of_its_name(api: Api, cats: str) -> None:
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    for crop in ([0, 0, 9, 9], [0, 0, 20, 20]):
        api.ask("PATCH", path, {"crop": crop})
    api.ask("POST", f"datasets/{cats}/captions", {"action": "add", "put": "photo"})
    api.ask("DELETE", path)
    api.upload(cats, "0.png", picture(seed=7))
    assert api.ask("POST", f"datasets/{cats}/undo")["undone"] == "add photo"
    assert api.ask("POST", f"datasets/{cats}/undo")["undone"] == ""
    image = api.get(cats)["images"][0]
    assert (image["name"], image["crop"], image["caption"]) == ("0.png", None, None)


def test_so_many_changes_are_undone_and_older_ones_stay(api: Api, cats: str) -> None:
    dataset = Catalogue(api.folder / SETS).get(cats)
    image = dataset.entries()[0][0].id
    for number in range(MOST_UNDONE + 20):
        dataset.change_image(image, {"caption": f"text {number}"})
    undone = 0
    while dataset.undo():
        undone += 1
    assert undone == MOST_UNDONE and dataset.entries()[0][0].caption == "text 19"


# --- files from outside


@pytest.mark.parametrize(
    "damage",
    [lambda good: good[:-20], lambda _: b"", lambda _: b"[]", lambda _: b"\xff", lambda _: b"[" * 99_999,
     lambda _: b'{"name": "x", "source": null, "images": {"a": ' + b"9" * 99_999 + b"}}",
     lambda good: good.replace(b'"version": 1', b'"version": 2')],
    ids=["cut", "empty", "list", "bytes", "deep", "digits", "newer"],
)  # fmt: skip
def test_a_damaged_or_newer_file_is_told_and_left_as_it_is(damage: Callable[[bytes], bytes], api: Api, cats: str) -> None:
    image, file = api.ids(cats)["0.png"], api.folder / SETS / cats / "images" / FILE
    api.ask("PATCH", f"datasets/{cats}/images/{image}", {"caption": "typed"})
    good = file.read_bytes()
    file.write_bytes(damage(good))
    before = api.files()
    for method, path, body in (
        ("GET", "", None), ("PATCH", f"/images/{image}", {"caption": "x"}), ("POST", "/duplicate", {}), ("POST", "/export", {}),
        ("POST", "/undo", {}), ("POST", "/files?name=a.png", picture()), ("PATCH", "", {"name": "y"}),
    ):  # fmt: skip
        told = api.refused(422, method, f"datasets/{cats}{path}", body)
        assert f"{FILE!r} of this dataset is" in told and len(told) < 400
    assert api.files() == before and api.ask("GET", "datasets")["datasets"][0]["name"] == cats
    file.write_bytes(good)
    assert api.captions(cats)["0.png"] == "typed"
    file.unlink()
    assert api.captions(cats)["0.png"] == "a cat, tag0" and api.get(cats)["name"] == cats, "begins again with its files"


def test_a_folder_that_vanishes_comes_back_with_its_captions(api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(2):
        write_picture(folder / f"{number}.png", seed=number)
    dataset = api.made("", folder=str(folder))
    api.looked_at(dataset)
    image = api.ids(dataset)["0.png"]
    api.ask("PATCH", f"datasets/{dataset}/images/{image}", {"caption": "kept"})
    folder.rename(tmp_path / "away")
    page = api.get(dataset)
    assert page["images"] == [] and "does not exist or is not a folder" in page["problems"][0]
    api.refused(404, "PATCH", f"datasets/{dataset}/images/{image}", {"caption": "x"})
    assert "does not exist" in api.refused(422, "POST", f"datasets/{dataset}/export")
    assert api.ask("POST", f"datasets/{dataset}/write", {})["count"] == 0
    (tmp_path / "away").rename(folder)
    assert api.captions(dataset) == {"0.png": "kept", "1.png": None}


def test_loops_of_links_and_folders_that_cannot_be_read(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    write_picture(folder / "a.png")
    for link, target in (("self", "."), ("loop", "loop"), ("b.png", "b.png"), ("one", "two"), ("two", "one")):
        (folder / link).symlink_to(target)
    dataset = api.made("", folder=str(folder))
    page = api.get(dataset)
    assert [image["name"] for image in page["images"]] == ["a.png"] and any(
        "'b.png' is a link" in told for told in page["problems"]
    )
    assert "is not a folder" in api.refused(422, "POST", "datasets", {"folder": str(folder / "loop")})

    def refuses(path: Any = ".") -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "scandir", refuses)
    assert any("Permission denied" in told and "check its permissions" in told for told in api.get(dataset)["problems"])


def test_a_dropped_caption_that_a_typed_one_hides_is_told(api: Api, cats: str) -> None:
    api.upload(cats, "new.png", picture(seed=8))
    api.ask("PATCH", f"datasets/{cats}/images/{api.ids(cats)['new.png']}", {"caption": "typed"})
    (told,) = api.upload(cats, "new.txt", b"of the file")["problems"]
    assert "'new.txt'" in told and "was changed here" in told and api.captions(cats)["new.png"] == "typed"


def test_names_that_some_disks_do_not_tell_apart_are_images_of_their_own(api: Api) -> None:
    dataset = api.made()
    names = ["a.png", "A.png", "a.PNG", "é.png", "e\u0301.png", "É.png"]
    for number, name in enumerate(names):
        api.upload(dataset, name, picture(seed=number))
    found = [image["name"] for image in api.get(dataset)["images"]]
    assert len({Path(name).stem.casefold() for name in found}) == len(names)


def test_sentences_are_bounded(api: Api, cats: str) -> None:
    images = api.folder / SETS / cats / "images"
    for number in range(200):
        (images / f"lone{number}.txt").write_text("x")
    problems = api.get(cats)["problems"]
    assert len(problems) <= 51 and any("more." in told for told in problems)


def test_a_zip_of_lies_about_its_names_is_one_image(api: Api, cats: str) -> None:
    """The same name twice, and a nested zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a.png", picture(seed=5))
        archive.writestr("a.png", picture(seed=6))
        archive.writestr("inner.zip", packed({"b.png": picture(seed=7)}))
    done = api.upload(cats, "a.zip", file.getvalue())
    assert done["images"] == ["a.png", "a-2.png"] and any("inner.zip" in told for told in done["problems"])
    assert not (api.folder / SETS / cats / "images" / MASKS).exists()
