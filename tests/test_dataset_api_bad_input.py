"""Bad input of the API of datasets: one sentence each, and nothing is lost or left behind."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from lib_lora.datasets import receiving  # noqa: E402
from lib_lora.files.plain_json import read_json  # noqa: E402
from lib_lora.ui.guard import Guard  # noqa: E402
from tests.api import ROOT, Api, Connection, app_in, named, packed, picture  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.house import assert_one_sentence  # noqa: E402


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(app_in(tmp_path / "webui"), tmp_path / "webui")


@pytest.fixture
def cats(api: Api) -> str:
    return api.made_with_captions()


def refused(api: Api, status: int, dataset: str, name: str, content: bytes) -> str:
    """The one sentence on an upload that leaves everything as it was."""
    before = api.files()
    told = api.refused(status, "POST", f"datasets/{dataset}/files", content, params=named(name))
    assert_one_sentence(told)
    assert api.files() == before
    return told


# --- zips


@pytest.mark.parametrize("path", ["../a.png", "x/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png", "\\\\host\\share\\a.png"])
def test_a_zip_with_a_path_outside_adds_nothing(path: str, api: Api, cats: str) -> None:
    assert "leads out of it" in refused(api, 422, cats, "a.zip", packed({"good.png": picture(seed=5), path: picture(seed=6)}))


def test_links_in_a_zip_are_told_and_the_rest_is_taken(api: Api, cats: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(seed=9))
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", picture(seed=5))
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(tmp_path / "secret.png"))
    done = api.upload(cats, "a.zip", file.getvalue())
    assert done["images"] == ["a.png"] and "'link.png': links" in done["problems"][0]
    assert picture(seed=9) not in api.files().values()


def test_bombs_and_endless_lists_are_refused(api: Api, cats: str) -> None:
    assert "times its size" in refused(api, 422, cats, "a.zip", packed({"a.bmp": bytes(30 * 2**20)}))
    assert "more than 64 MB" in refused(api, 422, cats, "a.zip", packed({"a.bmp": bytes(64 * 2**20 + 1)}))
    entry = b"PK\x01\x02" + bytes(42)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(entry) * 100_001, 30, 0)
    listed = b"PK\x03\x04" + bytes(26) + entry * 100_001 + end
    assert "100,000 files" in refused(api, 422, cats, "a.zip", listed)
    assert "damaged or broken off" in refused(api, 422, cats, "a.zip", packed({"a.png": picture()})[:-30])


# --- single files


@pytest.mark.parametrize(
    "name", ["猫の写真.png", "кот.png", "γάτα.png", "חתול.png", "قطة.png", "बिल्ली.png", "แมว.png", "🐱.png", "e\u0301té.png", "a b  c.png",
             "a&b=c;d#e.png", "x" * 190 + ".png", "don't.png", "'a'.png", "$(x).png", "-rf.png"]
)  # fmt: skip
def test_names_of_every_script_stay(name: str, api: Api) -> None:
    dataset = api.made()
    api.upload(dataset, name, picture())
    api.upload(dataset, Path(name).stem + ".txt", b"said")
    assert api.captions(dataset) == {unicodedata.normalize("NFC", name): "said"}


@pytest.mark.parametrize("name", ["", ".", "..", ".png", "con.png", "NUL", "Aux.tar.png", "com1 .png", "a\0.png"])
def test_names_that_cannot_be_used_are_one_sentence(name: str, api: Api, cats: str) -> None:
    told = refused(api, 422, cats, name, picture(seed=7))
    assert repr(name) in told and "rename it" in told


def test_a_name_never_leads_elsewhere(api: Api, cats: str) -> None:
    before = set(api.files())
    for name in ("../../../evil.png", "..\\..\\evil.png", "/etc/evil.png", "C:\\evil.png"):
        api.upload(cats, name, picture(seed=3))
    assert {Path(path).parent.name for path in set(api.files()) - before} == {"images"}


def test_what_is_neither_image_nor_caption_is_refused(api: Api, cats: str) -> None:
    for name, content in (("a.png", b""), ("a.png", b"no image" * 20), ("a.mp4", b"\0\0\0\x14ftypqt  ".ljust(64, b"\0")),
                          ("a.txt", b"\xff\xfe"), ("a.txt", b"a\0b"), ("a.pdf", b"%PDF-1.7".ljust(99)), ("a.rar", b"Rar!".ljust(99))):  # fmt: skip
        assert f"{name!r}: " in refused(api, 422, cats, name, content)


def test_sizes_are_bounded(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a caption of more than 1 MB" in refused(api, 422, cats, "2.txt", b"x" * (2**20 + 1))
    assert "20000 characters" in refused(api, 422, cats, "2.txt", b"x" * 2**20)
    image = api.ids(cats)["0.png"]
    told = api.refused(422, "PATCH", f"datasets/{cats}/images/{image}", {"caption": "x" * 2**20})
    assert "1048576 characters, must have at most 20000" in told and api.captions(cats)["0.png"] == "a cat, tag0"
    assert "more than 4 MB" in api.refused(413, "PATCH", f"datasets/{cats}/images/{image}", {"caption": "x" * 2**22})
    monkeypatch.setattr(receiving, "MAX_BYTES", 1000)
    assert "larger than 0 MB" in refused(api, 413, cats, "a.png", picture(300, 300))


def test_a_name_of_a_file_that_is_no_text_is_listed(api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_picture(folder / "a.png")
    try:
        (folder / "a.png").rename(folder / "\udcff.png")
    except OSError:
        pytest.skip("this disk takes only names that are text")
    dataset = api.made("photos", folder=str(folder))
    assert [image["name"] for image in api.get(dataset)["images"]] == ["\udcff.png"]
    assert "UTF-8" in api.ask("POST", f"datasets/{dataset}/report", {"settings": {"trigger": "x"}})["problems"][0]["text"]


# --- broken off, full disks, two at a time


@pytest.mark.parametrize(
    ("name", "content"), [("a.png", picture(400, 400)), ("a.zip", packed({"a.png": picture(400, 400)}))], ids=["image", "zip"]
)
def test_an_upload_that_is_broken_off_leaves_nothing(
    name: str, content: bytes, api: Api, cats: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, seen = api.files(), []

    def messages() -> Iterator[dict[str, Any]]:
        for at in range(0, len(content) // 2, 5000):
            yield {"type": "http.request", "body": content[at : at + 5000], "more_body": True}
            seen.append(len(api.files()))
        yield {"type": "http.disconnect"}

    Connection(api.client.app, "POST", f"datasets/{cats}/files?name={name}").sends(messages())
    assert max(seen) == len(before) + 1, "it was arriving"
    assert api.files() == before
    assert "Traceback" not in capsys.readouterr().err
    api.upload(cats, name, content)


def test_other_requests_that_are_broken_off_change_nothing(api: Api, cats: str) -> None:
    before = api.files()
    for method, path in (("POST", "datasets"), ("PATCH", f"datasets/{cats}"), ("DELETE", f"datasets/{cats}")):
        halves = iter([{"type": "http.request", "body": b'{"name": "x', "more_body": True}, {"type": "http.disconnect"}])
        Connection(api.client.app, method, path).sends(halves)
    assert api.files() == before


class Full:
    """A file on a disk that takes no byte more."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, content: bytes) -> int:
        self._room -= len(content)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/private/secret/upload")
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, room: int = 0) -> None:
    """Have files that are opened for writing take `room` bytes each."""
    opened = Path.open

    def open_it(path: Path, mode: str = "r", *given: Any, **more: Any) -> Any:
        file = opened(path, mode, *given, **more)
        return Full(file, room) if {"w", "x"} & {*mode} else file

    monkeypatch.setattr(Path, "open", open_it)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.png", picture(seed=5)), ("a.txt", b"a cat"), ("a.zip", packed({"a.png": picture(seed=5)}))],
    ids=["image", "caption", "zip"],  # a zip has the time in it, and those who test side by side must agree on names
)
def test_a_full_disk_is_told_and_nothing_is_left(
    name: str, content: bytes, api: Api, cats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (0, len(content) - 1):
        with monkeypatch.context() as patch:
            fill_the_disk(patch, room)
            told = refused(api, 507, cats, name, content)
        assert "No space left" in told and "/private" not in told
    api.upload(cats, name, content)


def test_a_full_disk_while_a_zip_is_unpacked(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed({f"{number}.png": picture(200, 200, seed=number) for number in range(3)})
    for call in range(3):
        done = iter(range(99))

        def copied(file: Any, member: Any, target: Path, *given: Any, done: Iterator[int] = done, call: int = call) -> None:
            target.write_bytes(b"half")
            if next(done) == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            target.write_bytes(file.read(member.info))

        with monkeypatch.context() as patch:
            patch.setattr("lib_lora.datasets.zips.unpack", copied)
            assert "No space left" in refused(api, 507, cats, "a.zip", content)


def test_a_full_disk_keeps_captions_and_edits(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    before, image = api.files(), api.ids(cats)["0.png"]
    with monkeypatch.context() as patch:
        patch.setattr("lib_lora.datasets.image_set.write_atomically", full)
        patch.setattr("lib_lora.datasets.catalogue.write_atomically", full)
        for method, path, body in (
            ("PATCH", f"datasets/{cats}/images/{image}", {"caption": "new"}), ("PATCH", f"datasets/{cats}", {"name": "new"}),
            ("PATCH", f"datasets/{cats}/images/{image}", {"crop": [0, 0, 9, 9]}), ("POST", f"datasets/{cats}/duplicate", {}),
            ("POST", f"datasets/{cats}/captions", {"action": "add", "put": "x"}), ("POST", "datasets", {"name": "new"}),
        ):  # fmt: skip
            told = api.refused(507, method, path, body)
            assert_one_sentence(told)
            assert "No space left" in told and str(api.folder) not in told
    assert api.files() == before and api.get(cats)["undo"] == ""


def test_of_many_pages_that_change_a_caption_at_once_one_wins(api: Api, cats: str) -> None:
    path = f"datasets/{cats}/images/{api.ids(cats)['0.png']}"
    sent = [{"caption": f"page {number}", "was": "a cat, tag0"} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: api.answer("PATCH", path, body), sent))
    (won,) = (body["caption"] for body, answer in zip(sent, answers) if answer.status_code == 200)
    lost = [answer for answer in answers if answer.status_code == 409]
    assert len(lost) == 7 and {answer.json()["now"] for answer in lost} == {won} == {api.captions(cats)["0.png"]}


# --- the guard


def every_route(app: Any, dataset: str, image: str) -> list[tuple[str, str]]:
    """Method and path of every route of the API."""
    found = [(method, route.path) for route in app.routes if route.path.startswith(ROOT) for method in sorted(route.methods)]
    return [(method, path.removeprefix(f"{ROOT}/").format(dataset=dataset, image=image)) for method, path in found]


@pytest.mark.parametrize("login", [False, True])
def test_strangers_are_refused_before_a_byte_is_read(login: bool, tmp_path: Path) -> None:
    """From another machine without a login, and without a session where there is one."""
    own = Api(app_in(tmp_path / "webui"), tmp_path / "webui")
    dataset = own.made()
    own.upload(dataset, "a.png", picture())
    image, before = own.ids(dataset)["a.png"], own.files()
    app = app_in(tmp_path / "webui", Guard(), login=login)
    routes = every_route(app, dataset, image)
    assert len(routes) >= 29 and len({method for method, _ in routes}) == 5
    for method, path in routes:
        asked = Connection(app, method, path, "127.0.0.1" if login else "192.0.2.7").sends(iter([]))
        assert (asked.status, asked.read) == (401 if login else 403, 0), (method, path)
        told = json.loads(asked.content)["problems"]
        assert [set(problem) for problem in told] == [{"option", "text"}]
    assert own.files() == before


def test_pages_of_other_sites_are_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    """Nor do they see images, as through a name of theirs that leads here (DNS rebinding)."""
    own = Api(app_in(tmp_path / "webui"), tmp_path / "webui")
    dataset = own.made()
    own.upload(dataset, "a.png", picture())
    app = app_in(tmp_path / "webui", Guard())
    for method, path in every_route(app, dataset, own.ids(dataset)["a.png"]):
        for headers in (
            {"origin": "https://evil.example", "content-type": "text/plain"},
            {"sec-fetch-site": "cross-site", "content-type": "text/plain"},
            {"host": "evil.example:7860"},
            {"x-forwarded-for": "::1"},
        ):
            asked = Connection(app, method, path, **headers).sends(iter([]))
            assert (asked.status, asked.read) == (403, 0), (method, path, headers)
    own = Connection(app, "POST", "datasets", origin="http://127.0.0.1:7860").sends(
        iter([{"type": "http.request", "body": b"{}"}])
    )
    assert own.status == 200


# --- bodies of every kind


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"{}x", b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 30 + b"1" + b"}" * 30,
     b'{"name":' + b"9" * 3_000_000 + b"}", b'{"name": NaN}', b'{"name": -Infinity}', b"[" + b"[]," * 300_000, b'{"name": "\xed\xa0\x80"}'],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_small_object_is_refused(body: bytes, api: Api, cats: str) -> None:
    before = api.files()
    for path in ("datasets", f"datasets/{cats}/captions", f"datasets/{cats}/report"):
        told = api.refused(422, "POST", path, body)
        assert_one_sentence(told)
    assert api.files() == before


def test_an_unexpected_error_is_a_sentence_too(api: Api, cats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("lib_lora.datasets.catalogue.Catalogue.get", fails)
    assert "This failed" in api.refused(500, "GET", f"datasets/{cats}")


FIELDS = ["name", "folder", "caption", "was", "left_out", "crop", "cut", "action", "find", "put", "where", "show", "text", "sort", "settings",
          "preview", "rank", "mode", "data", "resolution"]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["replace", "add", "remove", "move", "unique", "front", "all", "/", "{}", "\ud800", "\0", "..", "a\nb"]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=5)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Api, str]:
    folder = tmp_path_factory.mktemp("webui")
    api = Api(app_in(folder), folder)
    dataset = api.made("fuzzed")
    api.upload(dataset, "a.png", picture())
    return api, dataset


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_no_body_is_an_error_of_ours(data: Any, fuzzed: tuple[Api, str]) -> None:
    """Whatever is sent is done or refused with sentences; the dataset can be listed afterwards."""
    api, dataset = fuzzed
    image = api.ids(dataset)["a.png"]
    routes = [
        (method, path) for method, path in every_route(api.client.app, dataset, image)
        if method in ("POST", "PATCH") and not path.endswith(("/files", "/captioning"))
    ]  # fmt: skip
    method, path = data.draw(st.sampled_from(routes))
    body = json.dumps(data.draw(BODIES)).encode()
    answer = api.answer(method, path, body)
    assert answer.status_code in (200, 404, 409, 413, 422), (method, path, body, answer.text)
    if answer.status_code != 200:
        assert answer.json()["problems"], body
    made = answer.json().get("id") if answer.status_code == 200 else None
    if made and made != dataset:
        api.ask("DELETE", f"datasets/{made}")
    assert api.get(dataset)["counts"]["all"] == 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_no_query_and_no_path_is_an_error_of_ours(data: Any, fuzzed: tuple[Api, str]) -> None:
    api, dataset = fuzzed
    ids = st.sampled_from([dataset, "set-0123456789abcdef", "", "..", "%00", "%ff", "x" * 3000]) | st.text(max_size=8).map(
        lambda text: "".join(f"%{byte:02x}" for byte in text.encode(errors="replace"))
    )
    query = data.draw(
        st.dictionaries(st.sampled_from(["show", "text", "sort", "page", "settings", "name"]), st.text(max_size=12), max_size=4)
    )
    path = f"datasets/{data.draw(ids)}/" + data.draw(st.sampled_from(["", "images/{}/thumbnail", "exported"])).format(
        data.draw(ids)
    )
    answer = api.client.get(f"{ROOT}/{path.rstrip('/')}", params=query)
    assert answer.status_code < 500 and answer.status_code != 400, (path, query, answer.text)


def test_numbers_with_endless_digits_are_not_read() -> None:
    """Python 3.10 takes minutes for a whole number of a million digits."""
    assert read_json("9" * 30) == int("9" * 30)
    for text in ("9" * 31, "[-" + "9" * 31 + "]", "NaN", '{"a": -Infinity}'):
        with pytest.raises(ValueError):
            read_json(text)
    assert read_json("[[], {}]", 3) == [[], {}]
    with pytest.raises(ValueError, match="more than 2"):
        read_json("[[], {}]", 2)
