"""The routes of datasets, from the first to the last: what they answer, and what is on the disk afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi")

from lib_lora.check import find_images, look  # noqa: E402
from lib_lora.config.groups import build_config  # noqa: E402
from lib_lora.errors import Problem  # noqa: E402
from lib_lora.plan import make_plan  # noqa: E402
from lib_lora.ui.api import listing as listing_room  # noqa: E402
from lib_lora.ui.api.datasets import MOST_PREVIEWED  # noqa: E402
from lib_lora.ui.api.report import MOST_CAPTIONS  # noqa: E402
from lib_lora.ui.report import reported, together  # noqa: E402
from tests.api import Api, app_in, named, packed, picture, until  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.folder_host import FolderHost  # noqa: E402

SETTINGS = {"resolution": 64, "min_bucket_reso": 64, "trigger": "ohwx"}


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(app_in(tmp_path / "webui"), tmp_path / "webui")


@pytest.fixture
def cats(api: Api) -> str:
    """A dataset of three pictures, two of them captioned."""
    dataset = api.made()
    for number, size in enumerate([(96, 64), (64, 96), (80, 80)]):
        api.upload(dataset, f"{number}.png", picture(*size, seed=number))
    for number in range(2):
        api.upload(dataset, f"{number}.txt", f"a cat, tag{number}".encode())
    return dataset


def folder_of(tmp_path: Path, count: int = 2) -> Path:
    for number in range(count):
        write_picture(tmp_path / "photos" / f"{number}.png", seed=number)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"photo {number}")
    return tmp_path / "photos"


def digest(folder: Path) -> str:
    found = [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return hashlib.sha256(repr(found).encode()).hexdigest()


# --- datasets


def test_datasets_are_made_listed_renamed_duplicated_and_deleted(api: Api, cats: str) -> None:
    unnamed = api.ask("POST", "datasets", {})
    assert unnamed["name"] == "Dataset" and api.ask("POST", "datasets")["name"] == "Dataset 2"
    listed = api.ask("GET", "datasets")
    assert listed["folders"] is True and {found["name"] for found in listed["datasets"]} == {"cats", "Dataset", "Dataset 2"}
    assert api.ask("PATCH", f"datasets/{cats}", {"name": "dogs"}) == {"id": cats, "name": "dogs"}
    copy = api.ask("POST", f"datasets/{cats}/duplicate", {})
    assert copy["name"] == "dogs 2" and api.captions(copy["id"]) == api.captions(cats)
    api.ask("DELETE", f"datasets/{cats}")
    assert cats not in {found["id"] for found in api.ask("GET", "datasets")["datasets"]}
    assert len(api.captions(copy["id"])) == 3 and not any(cats in path for path in api.files())
    for path in ("", "/images/0123456789abcdef/thumbnail", "/exported"):
        assert "does not exist any more" in api.refused(404, "GET", f"datasets/{cats}{path}")


def test_a_folder_on_the_disk_is_shown_and_not_touched(api: Api, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    before = digest(folder)
    dataset = api.made("", folder=str(folder))
    page = api.looked_at(dataset)
    assert (page["name"], page["folder"], page["counts"]["all"]) == ("photos", str(folder), 2)
    assert not any(image["removable"] for image in page["images"])
    first = api.ids(dataset)["0.png"]
    api.ask("PATCH", f"datasets/{dataset}/images/{first}", {"caption": "other", "crop": [0, 0, 50, 50]})
    api.ask("DELETE", f"datasets/{dataset}/images/{api.ids(dataset)['1.png']}")
    assert api.get(dataset)["counts"]["left_out"] == 1
    assert "put the images there" in api.refused(422, "POST", f"datasets/{dataset}/files", b"x", params={"name": "a.png"})
    assert api.ask("POST", f"datasets/{dataset}/write", {"preview": True})["count"] == 1
    assert digest(folder) == before
    assert api.ask("POST", f"datasets/{dataset}/write", {})["count"] == 1
    assert (folder / "0.txt").read_text() == "other" and (folder / "1.txt").read_text() == "photo 1"
    assert (folder / "0.txt.bak").read_text() == "photo 0"
    assert api.ask("POST", f"datasets/{dataset}/write", {"preview": True})["count"] == 0


def test_folders_can_be_hidden(tmp_path: Path) -> None:
    api = Api(app_in(tmp_path / "webui", hides_folders=True), tmp_path / "webui")
    assert api.ask("GET", "datasets")["folders"] is False
    assert "--hide-ui-dir-config" in api.refused(403, "POST", "datasets", {"folder": str(tmp_path)})
    dataset = api.made()
    for option in ("data", "reg_data"):
        settings = {option: [str(tmp_path)], "trigger": "x"}
        assert "--hide-ui-dir-config" in api.refused(422, "POST", f"datasets/{dataset}/report", {"settings": settings})
    assert api.ask("POST", f"datasets/{dataset}/report", {"settings": {"trigger": "x"}})["plan"] is None


# --- pages


def test_a_page_tells_what_is_true_of_each_image(api: Api, cats: str) -> None:
    page = api.looked_at(cats)
    assert {key: page[key] for key in ("id", "name", "folder", "folders", "undo", "page", "pages", "problems", "duplicates")} == {
        "id": cats, "name": "cats", "folder": None, "folders": [], "undo": "", "page": 1, "pages": 1, "problems": [], "duplicates": 0,
    }  # fmt: skip
    assert page["looked"] == {"done": 3, "total": 3}
    images = {image["name"]: image for image in page["images"]}
    assert {name: image["size"] for name, image in images.items()} == {"0.png": [96, 64], "1.png": [64, 96], "2.png": [80, 80]}
    assert {name: image["caption"] for name, image in images.items()} == {
        "0.png": "a cat, tag0", "1.png": "a cat, tag1", "2.png": None,
    }  # fmt: skip
    assert not any("caption" in text for text in images["2.png"]["notices"]), "its empty field says it"
    assert images["0.png"]["tokens"] > 3
    assert page["tags"][0] == {"tag": "a cat", "count": 2} and page["counts"]["no_caption"] == 1


def test_the_frame_is_the_cut_that_training_makes(api: Api, cats: str) -> None:
    api.looked_at(cats)
    page = api.get(cats, settings=json.dumps(SETTINGS))
    (folder,) = {path.parent for path in api.folder.rglob("*.pn_")}
    config = build_config({**SETTINGS, "data": [str(folder)]})
    dataset = find_images(config)
    plan = make_plan(config, dataset)
    for image in page["images"]:
        (index,) = (i for i, sample in enumerate(dataset.samples) if sample.path.name[0] == image["name"][0])
        placement, size = plan.placements[index], dataset.samples[index].size
        left, top, right, bottom = image["frame"]
        scale = placement.resized.width / size.width
        assert (right - left) * size.width * scale == pytest.approx(placement.bucket.width, abs=1)
        assert (bottom - top) * size.height * scale == pytest.approx(placement.bucket.height, abs=1)
        assert left + right == pytest.approx(1, abs=0.03) and top + bottom == pytest.approx(1, abs=0.03)


def test_images_are_filtered_searched_sorted_and_paged(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api.looked_at(cats)
    api.ask("PATCH", f"datasets/{cats}/images/{api.ids(cats)['1.png']}", {"left_out": True})

    def names(**query: Any) -> list[str]:
        return [image["name"] for image in api.get(cats, **query)["images"]]

    assert names(show="no_caption") == ["2.png"] and names(show="left_out") == ["1.png"] and names(show="duplicate") == []
    assert names(text="TAG0") == ["0.png"] == names(text="0.PNG") and names(text="no such") == []
    assert names(sort="size") == ["0.png", "1.png", "2.png"] and names(sort="tokens")[0] == "2.png"
    monkeypatch.setattr(listing_room, "PER_PAGE", 2)
    assert [names(page=page) for page in (1, 2, 3)] == [["0.png", "1.png"], ["2.png"], ["2.png"]]
    assert api.get(cats)["pages"] == 2
    for query in ({"show": "x"}, {"sort": "x"}, {"page": "0"}, {"page": "x"}, {"page": "9" * 5000}, {"text": "x" * 1001},
                  {"settings": "["}, {"settings": '{"nothing": 1}'}, {"settings": "1"}, {"settings": "[" * 3000}):  # fmt: skip
        assert "Field '" in api.refused(422, "GET", f"datasets/{cats}", params=query)


def test_thumbnails_are_jpegs(api: Api, cats: str) -> None:
    page = api.looked_at(cats)
    for image in page["images"]:
        answer = api.answer("GET", image["thumbnail"])
        assert answer.headers["content-type"] == "image/jpeg" and answer.headers["cache-control"].startswith("private")
        with Image.open(io.BytesIO(answer.content)) as small:
            assert (small.format, list(small.size)) == ("JPEG", image["size"])
    gone = page["images"][0]
    api.ask("DELETE", f"datasets/{cats}/images/{gone['id']}")
    for image in (gone["id"], "0" * 16, "x", "%2e%2e", "é"):
        assert "does not exist any more" in api.refused(404, "GET", f"datasets/{cats}/images/{image}/thumbnail")


# --- files


def test_images_captions_and_zips_arrive(api: Api) -> None:
    dataset = api.made()
    jpeg = picture(kind="JPEG")
    assert api.upload(dataset, "a.png", jpeg)["images"] == ["a.jpg"], "its name tells the truth"
    assert api.upload(dataset, "a.txt", "猫, 🐱".encode()) == {"images": [], "captions": 1, "problems": []}
    assert api.captions(dataset) == {"a.jpg": "猫, 🐱"}
    done = api.upload(dataset, "more.zip", packed({"b.png": picture(seed=1), "b.txt": b"b", "c.md": b"no"}))
    assert (done["images"], done["captions"]) == (["b.png"], 1) and "'c.md'" in done["problems"][0]
    assert api.captions(dataset) == {"a.jpg": "猫, 🐱", "b.png": "b"}
    assert jpeg in api.files().values() and not any(path.endswith((".png", ".jpg")) for path in api.files())


def test_of_a_zip_with_both_kinds_a_dataset_of_regularisation_images_takes_these(api: Api) -> None:
    both = packed({"img/10_cat/a.png": picture(seed=1), "reg/1_animal/b.png": picture(seed=2)})
    done = api.ask("POST", f"datasets/{api.made('animals')}/files", both, params={"name": "all.zip", "reg": "true"})
    assert done["images"] == ["b.png"] and "'a.png': images to learn from" in done["problems"][0]
    done = api.ask("POST", f"datasets/{api.made()}/files", both, params={"name": "all.zip", "reg": "false"})
    assert done["images"] == ["a.png"] and "'b.png': regularisation images" in done["problems"][0]
    asked = {"name": "all.zip", "reg": "yes"}
    assert (
        api.refused(422, "POST", f"datasets/{api.made('others')}/files", both, params=asked)
        == "Field 'reg': must be true or false."
    )


def test_an_image_goes_with_its_caption(api: Api, cats: str) -> None:
    api.ask("DELETE", f"datasets/{cats}/images/{api.ids(cats)['0.png']}")
    assert sorted(api.captions(cats)) == ["1.png", "2.png"] and not any("0." in path for path in api.files())
    assert "does not exist any more" in api.refused(404, "DELETE", f"datasets/{cats}/images/{'0' * 16}")


# --- changes


def test_a_caption_crop_and_cut_are_set_and_taken_back(api: Api, cats: str) -> None:
    api.looked_at(cats)
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    for text in ("猫, 座っている 🐱", "(tag:1.2), \\(escaped\\)", "שלום, عربى", "a\n\nb", ""):
        api.ask("PATCH", path, {"caption": text})
        assert api.captions(cats)["0.png"] == text
    api.ask("PATCH", path, {"crop": [10, 0, 74, 64], "cut": [0.5, 1.0], "left_out": True})
    image = api.get(cats)["images"][0]
    assert (image["crop"], image["cut"], image["left_out"]) == ([10, 0, 74, 64], [0.5, 1.0], True)
    assert image["part"] == pytest.approx([10 / 96, 0, 74 / 96, 1])
    assert api.ask("POST", f"datasets/{cats}/undo") == {"undone": "leave out 0.png"}
    image = api.get(cats)["images"][0]
    assert (image["crop"], image["cut"], image["left_out"]) == (None, None, False)
    api.ask("PATCH", path, {"crop": [0, 0, 50, 50]})
    api.ask("PATCH", path, {"crop": None})
    assert api.get(cats)["images"][0]["crop"] is None
    while api.ask("POST", f"datasets/{cats}/undo")["undone"]:
        pass
    assert api.captions(cats)["0.png"] == "a cat, tag0"


def test_what_cannot_be_set_changes_nothing(api: Api, cats: str) -> None:
    api.looked_at(cats)
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    before = api.files()
    for body in ({"crop": [0, 0, 1]}, {"crop": [5, 0, 5, 9]}, {"crop": "x"}, {"crop": [0, 0, 97, 64]}, {"cut": [2, 0]}, {"cut": {}},
                 {"left_out": "yes"}, {"caption": 1}, {"caption": None}, {"mask": 1}, {"caption": "new", "crop": [0, 0, 97, 64]},
                 {"caption": "new", "was": 3}, {"caption": "new", "cut": [1]}):  # fmt: skip
        assert api.refused(422, "PATCH", path, body)
    assert api.files() == before
    assert "does not exist any more" in api.refused(404, "PATCH", f"datasets/{cats}/images/{'0' * 16}", {"crop": [0, 0, 9, 9]})


def test_the_later_of_two_pages_is_told(api: Api, cats: str) -> None:
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    api.ask("PATCH", path, {"caption": "first page", "was": "a cat, tag0"})
    answer = api.answer("PATCH", path, {"caption": "second page", "was": "a cat, tag0"})
    assert answer.status_code == 409 and answer.json()["now"] == "first page"
    assert "on another page meanwhile" in answer.json()["problems"][0]["text"] and api.captions(cats)["0.png"] == "first page"
    api.ask("PATCH", path, {"caption": "first page", "was": "a cat, tag0"})  # the same text again is no conflict
    api.ask("PATCH", path, {"caption": "second page", "was": "first page"})


def test_captions_are_changed_together_once_they_were_previewed(api: Api, cats: str) -> None:
    path = f"datasets/{cats}/captions"
    before = api.captions(cats)
    previewed = api.ask("POST", path, {"action": "replace", "find": "cat", "put": "dog", "preview": True})
    assert previewed["count"] == 2 and api.captions(cats) == before
    assert previewed["changes"][0] == {"name": "0.png", "before": "a cat, tag0", "after": "a dog, tag0"}
    assert api.ask("POST", path, {"action": "replace", "find": "cat", "put": "dog"})["count"] == 2
    assert api.captions(cats)["1.png"] == "a dog, tag1"
    api.ask("POST", path, {"action": "add", "put": "sitting", "where": "front", "text": "tag0"})
    assert api.captions(cats) == {"0.png": "sitting, a dog, tag0", "1.png": "a dog, tag1", "2.png": None}
    api.ask("POST", path, {"action": "move", "find": "sitting", "where": "end"})
    api.ask("POST", path, {"action": "remove", "find": "tag0"})
    assert api.captions(cats)["0.png"] == "a dog, sitting"
    api.ask("POST", path, {"action": "add", "put": "sitting", "show": "no_caption"})
    assert api.captions(cats)["2.png"] == "sitting" and api.ask("POST", path, {"action": "unique"})["count"] == 0
    while api.ask("POST", f"datasets/{cats}/undo")["undone"]:
        pass
    assert api.captions(cats) == before
    for body in ({}, {"action": "x"}, {"action": "add"}, {"action": "add", "put": "x", "where": "up"}, {"action": "replace", "find": 1},
                 {"action": "unique", "preview": "yes"}, {"action": "unique", "page": 1}, {"action": "unique", "show": []}):  # fmt: skip
        assert api.refused(422, "POST", path, body)


def test_tags_are_told_apart_by_the_form_s_separator(api: Api) -> None:
    dataset = api.made()
    api.upload(dataset, "a.png", picture())
    api.upload(dataset, "a.txt", b"a cat, asleep;sofa;a cat, asleep")
    settings = json.dumps({"caption_separator": ";"})
    assert api.get(dataset, settings=settings)["tags"][0] == {"tag": "a cat, asleep", "count": 1}
    path, form = f"datasets/{dataset}/captions", {"settings": settings}
    assert api.ask("POST", path, {"action": "unique", **form})["count"] == 1
    api.ask("POST", path, {"action": "move", "find": "sofa", "where": "front", **form})
    assert api.captions(dataset) == {"a.png": "sofa;a cat, asleep"}
    api.ask("POST", path, {"action": "replace", "find": "Sofa", "put": "x", "case": True})
    api.ask("POST", path, {"action": "replace", "find": "a cat", "put": "x", "whole_tag": True, **form})
    assert api.captions(dataset) == {"a.png": "sofa;a cat, asleep"}, "neither in that case nor a whole tag"
    api.ask("POST", path, {"action": "remove", "find": "sofa", "settings": json.dumps({"caption_separator": ""})})
    assert api.captions(dataset) == {"a.png": "sofa;a cat, asleep"}, "then a comma is meant"


def test_duplicates_are_left_out_at_once(api: Api, cats: str) -> None:
    api.upload(cats, "same.png", picture(96, 64, seed=0))
    assert api.looked_at(cats)["duplicates"] == 1
    assert api.ask("POST", f"datasets/{cats}/duplicates") == {"count": 1}
    page = api.get(cats)
    assert [image["name"] for image in page["images"] if image["left_out"]] == ["same.png"] and page["duplicates"] == 0
    assert api.ask("POST", f"datasets/{cats}/undo") == {"undone": "leave out 1 duplicates"}


# --- in and out


def test_a_dataset_leaves_as_a_zip_and_comes_back(api: Api, cats: str) -> None:
    assert "has not been exported" in api.refused(404, "GET", f"datasets/{cats}/exported")
    done = api.ask("POST", f"datasets/{cats}/export")
    answer = api.answer("GET", done["path"])
    assert done["name"] == "cats.zip" and 'filename="cats.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = set(archive.namelist())
        assert archive.read("10_cats/0.png") == picture(96, 64, seed=0)
    assert names == {f"10_cats/{name}" for name in ("0.png", "0.txt", "1.png", "1.txt", "2.png")}
    again = api.made("again")
    api.upload(again, "cats.zip", answer.content)
    assert api.captions(again) == api.captions(cats)


def test_captions_are_written_with_the_form_s_extension(api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_picture(folder / "a.png")
    dataset = api.made("photos", folder=str(folder))
    api.ask("PATCH", f"datasets/{dataset}/images/{api.ids(dataset)['a.png']}", {"caption": "a cat"})
    settings = json.dumps({"caption_extension": ".caption"})
    assert api.ask("POST", f"datasets/{dataset}/write", {"settings": settings})["count"] == 1
    assert {path.name for path in folder.iterdir()} == {"a.png", "a.caption"}


def test_an_image_goes_to_the_folder_that_is_chosen(api: Api) -> None:
    dataset = api.made()
    api.upload(dataset, "all.zip", packed({"10_cat/a.png": picture(seed=1), "3_dog/a.png": picture(seed=2)}))
    path, content = f"datasets/{dataset}/files", picture(seed=3)
    assert "choose the one" in api.refused(422, "POST", path, content, params=named("b.png"))
    api.ask("POST", path, content, params=f"{named('b.png')}&folder=3_dog")
    assert {image["place"] for image in api.get(dataset)["images"]} == {"10_cat/a.png", "3_dog/a.png", "3_dog/b.png"}


def test_an_exported_zip_has_the_form_s_repeats_the_crops_if_asked_and_tells_what_it_lacks(api: Api, tmp_path: Path) -> None:
    outside, folder = write_picture(tmp_path / "outside.png"), tmp_path / "photos"
    write_picture(folder / "a.png", 96, 64)
    (folder / "link.png").symlink_to(outside)
    dataset = api.made("photos", folder=str(folder))
    image = api.ids(dataset)["a.png"]
    api.ask("PATCH", f"datasets/{dataset}/images/{image}", {"crop": [0, 0, 40, 30]})
    done = api.ask("POST", f"datasets/{dataset}/export", {"settings": json.dumps({"repeats": 3}), "apply_crops": True})
    assert len(done["problems"]) == 1 and "link.png" in done["problems"][0]
    with zipfile.ZipFile(io.BytesIO(api.answer("GET", done["path"]).content)) as archive:
        assert Image.open(io.BytesIO(archive.read("3_photos/a.png"))).size == (40, 30)
    assert "no images to export" in api.refused(422, "POST", f"datasets/{api.made('empty')}/export")


# --- the report


def test_the_report_is_that_of_the_form(api: Api, cats: str) -> None:
    found = api.ask("POST", f"datasets/{cats}/report", {"settings": {**SETTINGS, "repeats": 4, "epochs": 3}})
    assert found["problems"] == []
    plan = found["plan"]
    (folder,) = {path.parent for path in api.folder.rglob("*.pn_")}
    config = build_config({**SETTINGS, "repeats": 4, "epochs": 3, "data": [str(folder)]})
    wanted = make_plan(config, find_images(config))
    assert (plan["steps"], plan["formula"], plan["captions"]) == (wanted.steps, wanted.formula, wanted.captions)
    assert plan["steps"] == 36 and plan["captions"].startswith("2 of 3 from files")
    assert sum(bucket["images"] for bucket in plan["buckets"]) == 3 == plan["images"]
    assert {tuple(bucket["size"]) for bucket in plan["buckets"]} == {(size.width, size.height) for size in wanted.buckets}
    assert plan["trained_captions"] == ["ohwx, a cat, tag0", "ohwx, a cat, tag1", "ohwx"]
    assert plan["folders"] == [{"name": "cats", "images": 3, "repeats": 4, "regularisation": False}]


def test_the_report_tells_problems_by_option(api: Api, cats: str) -> None:
    def told(settings: Any, dataset: str = cats) -> dict[str, str]:
        found = api.ask("POST", f"datasets/{dataset}/report", {"settings": settings})
        return {problem["option"]: problem["text"] for problem in found["problems"]}

    assert "2.png" in told({"resolution": 64})["data"], "it has neither a caption nor a trigger"
    assert told({**SETTINGS, "rank": -1}).keys() == {"rank"} and "rank" in told({**SETTINGS, "rank": {}})
    assert "does not exist" in told({**SETTINGS, "no_such_option": 1})[""]
    assert set(told(SETTINGS, api.made("empty"))) == {"data"}
    assert api.ask("POST", f"datasets/{cats}/report")["plan"]["images"] == 3, "a missing caption leaves the report"
    for wrong in ([], "x", 1, None):
        assert "Field 'settings'" in api.refused(422, "POST", f"datasets/{cats}/report", {"settings": wrong})
    assert "does not exist any more" in api.refused(404, "POST", "datasets/set-0123456789abcdef/report", {"settings": {}})


def test_long_answers_are_cut(api: Api) -> None:
    dataset, count = api.made(), MOST_PREVIEWED + 5
    files = {f"{number}.png": picture(64, 64, seed=number) for number in range(count)}
    api.upload(dataset, "a.zip", packed({**files, **{f"{number}.txt": f"cat {number}".encode() for number in range(count)}}))
    found = api.ask("POST", f"datasets/{dataset}/captions", {"action": "add", "put": "photo", "preview": True})
    assert (found["count"], len(found["changes"])) == (count, MOST_PREVIEWED)
    plan = api.ask("POST", f"datasets/{dataset}/report", {"settings": SETTINGS})["plan"]
    assert plan["images"] == count > MOST_CAPTIONS == len(plan["trained_captions"])


def test_a_name_is_not_needed_for_a_report_but_a_wrong_one_is_told(tmp_path: Path) -> None:
    host: Any = FolderHost(tmp_path)
    wrong = Problem("name", "Name (name): contains a null character.")
    for illegal in ([], [wrong]):
        _, problems = reported(look(build_config({}), host), illegal)
        assert [problem for problem in problems if problem.option == "name"] == illegal
    assert together([wrong], [Problem("name", "other"), Problem("rank", "x")]) == [wrong, "x"]


def test_an_image_that_was_looked_at_is_not_decoded_again_for_the_report(
    api: Api, cats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.looked_at(cats)

    def never(*given: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("lib_lora.data.decoder_process.Reader.picture", never)
    assert api.ask("POST", f"datasets/{cats}/report", {"settings": SETTINGS})["plan"]["images"] == 3


def test_a_first_thumbnail_is_there_before_the_last_file(api: Api) -> None:
    dataset = api.made()
    api.upload(dataset, "0.png", picture(seed=0))
    until(lambda: api.get(dataset)["images"][0]["thumbnail"], bool)
    api.upload(dataset, "1.png", picture(seed=1))
    assert api.looked_at(dataset)["looked"] == {"done": 2, "total": 2}
