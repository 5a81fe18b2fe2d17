"""Large photos: a page waits for fewer pixels than they have, and all pixels are made apart before any other process does."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_lora.check import look
from lib_lora.data import dataset as dataset_room
from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import checked_picture, decoded_whole, scan
from lib_lora.data.decoder_main import answer, answer_to, decode
from lib_lora.data.decoder_process import Look, NoReaderError, Reader, Readers
from lib_lora.data.image_facts import LOOKED_AT, ImageFacts, save_thumbnail
from lib_lora.data.image_files import NotNowError, Picture
from lib_lora.data.sizes import Size
from lib_lora.datasets import looked
from lib_lora.datasets.caption_tokens import token_counts
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.crops import crop_edits
from lib_lora.datasets.decoders import Decoders
from lib_lora.datasets.image_set import ImageSet
from lib_lora.datasets.looked import Looks, Progress
from lib_lora.errors import ConfigError, DatasetError
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.ui.api.serving import in_pieces
from tests.api import Api, app_in, picture
from tests.conftest import small_config, write_picture

SECONDS = 60
KINDS: list[dict[str, object]] = [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"optimize": True}]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_room, "_checked", {})


@pytest.fixture
def large(tmp_path: Path) -> ImageSet:
    """A dataset of four photos that are larger than their thumbnails, and a small one."""
    dataset = Catalogue(tmp_path / "sets").create("cats")
    for number in range(5):
        width, height = (1600, 1200) if number else (300, 200)
        dataset.add(f"{number}.jpg", write_picture(tmp_path / f"{number}.jpg", width, height, seed=number, quality=90))
    return dataset


class Counted(Reader):
    """A reader that notes what it decodes: `look` some pixels, `picture` all."""

    def __init__(self, asked: list[tuple[str, str]]) -> None:
        super().__init__()
        self._noted = asked

    def look(self, path: Path, thumbnail: Path, side: int) -> Look:
        self._noted.append(("look", path.name[0]))
        return super().look(path, thumbnail, side)

    def picture(self, path: Path) -> Picture:
        self._noted.append(("picture", path.name[0]))
        return super().picture(path)


class Halves(Reader):
    """A reader without a process, which never makes all pixels at the first look; `why` is raised when they are asked for."""

    def __init__(self, why: list[Exception], asked: list[str]) -> None:
        super().__init__()
        self._why, self._pictures = why, asked

    def size(self, path: Path) -> Size:
        return Size(1200, 1600)

    def look(self, path: Path, thumbnail: Path, side: int) -> Look:
        save_thumbnail(Image.new("RGB", (8, 8)), thumbnail, side)
        return Look(ImageFacts(Size(1200, 1600), "0" * 64, False, False, 5, 1.5), "", whole=False)

    def picture(self, path: Path) -> Picture:
        self._pictures.append(path.name[0])
        if self._why:
            raise self._why[0]
        return Picture(Size(1200, 1600), "0" * 64)


def renewed(looks: Looks, dataset: ImageSet) -> Looks:
    looks.renew(dataset.entries()[0])
    assert looks.wait(SECONDS)
    return looks


def facts_of(path: Path, tmp_path: Path) -> dict[str, object]:
    return answer_to({"path": str(path), "thumbnail": str(tmp_path / "t.jp_"), "side": 512})


# --- the decoder process


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damage_is_told_in_the_same_words_whether_all_pixels_are_made_or_fewer(mode: str) -> None:
    """Cut short anywhere, with bytes changed, and with bytes lost."""
    chance, noise = random.Random(0), np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image, files = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC).convert(mode), []
    for kind in KINDS:
        file = io.BytesIO()
        image.save(file, "JPEG", **kind)
        files.append(file.getvalue())
    verdicts = set()
    for number in range(200):
        content = bytearray(chance.choice(files))
        at = chance.randrange(len(content))
        if number % 3 == 0:
            del content[at:]
        elif number % 3 == 1:
            del content[at : at + chance.choice((1, 20, 900))]
        else:
            for _ in range(chance.choice((1, 9))):
                content[chance.randrange(len(content))] = chance.randrange(256)
        whole, fewer = (said(bytes(content), side) for side in (0, 64))
        assert whole == fewer
        verdicts.add(whole[:20])
    assert len(verdicts) > 1, "some can be read, and some cannot"


def said(content: bytes, side: int) -> str:
    try:
        decoded = decode(Path("a.jpg"), content, side)
    except DatasetError as error:
        return f"problem: {error.problems}"
    assert decoded.whole is (not side) or max(decoded.size) < 2 * side
    return f"image: {decoded.size} {decoded.turned}"


@pytest.mark.parametrize("orientation", [1, 6])
def test_fewer_pixels_tell_the_same_of_a_large_photo(tmp_path: Path, orientation: int) -> None:
    """Against a PNG of the same pixels, of which all are made."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_picture(tmp_path / "a.jpg", 2400, 1600, quality=95, exif=exif)
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "b.png") if orientation == 6 else image.save(
            tmp_path / "b.png"
        )
    few, all_of_it = (facts_of(one, tmp_path) for one in (path, tmp_path / "b.png"))
    assert few["whole"] is False and "whole" not in all_of_it
    assert few["size"] == all_of_it["size"] == ([1600, 2400] if orientation == 1 else [2400, 1600])
    assert (int(str(few["hash"]), 16) ^ int(str(all_of_it["hash"]), 16)).bit_count() <= 2
    assert few["sharpness"] == pytest.approx(all_of_it["sharpness"], rel=0.1, abs=0.3)
    with Image.open(tmp_path / "t.jp_") as shown:
        assert max(shown.size) == 512
    assert answer(path) == {"size": few["size"], "sha256": few["sha256"]}
    assert "whole" not in facts_of(write_picture(tmp_path / "c.jpg", 900, 600), tmp_path), "it has not twice the pixels"


def test_a_photo_of_12_mp_is_looked_at_from_an_eighth_of_its_pixels() -> None:
    """A JPEG decoder makes these alone, in about half of the time; a larger thumbnail would take a quarter."""
    file = io.BytesIO()
    Image.new("RGB", (4000, 3000), "red").save(file, "JPEG")
    assert decode(Path("a.jpg"), file.getvalue(), max(looked.SIDE, LOOKED_AT)).picture.size == (500, 375)


# --- the look


def test_of_a_photo_all_pixels_are_made_once_and_a_thumbnail_once(large: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a page asks meanwhile, in any order; opening it again decodes nothing."""
    asked: list[tuple[str, str]] = []
    decoders = Decoders(lambda: Counted(asked), 2)
    looks = Looks(large, decoders, linger_s=0.1)
    entries, _ = large.entries()
    looks.renew(entries)
    while not looks.wait(0.01):
        looks.first(entries[3:])
    assert sorted(asked) == sorted([*(("look", name) for name in "01234"), *(("picture", name) for name in "1234")])
    assert [kind for kind, _ in asked[:4]] == ["look"] * 4, "what a page waits for comes first"
    asked.clear()
    again = renewed(Looks(large, decoders, linger_s=0.1), large)
    assert asked == [] and again.progress() == Progress(5, 5)
    assert all(found.whole for entry in entries if (found := again.of(entry)))


def test_what_was_not_made_before_the_program_ended_is_made_later(large: ImageSet) -> None:
    asked: list[str] = []
    looks = Looks(large, Decoders(lambda: Halves([NotNowError(["Later."])], asked), 1), linger_s=0.05)
    renewed(looks, large)
    assert asked == list("01234") and all((found := looks.of(entry)) and found.facts for entry in large.entries()[0])
    looks.close()
    index = json.loads((large.looked / "looked.json").read_text())["images"]
    assert [values[-1] for values in index.values()] == [False] * 5
    del asked[:]
    again = renewed(Looks(large, Decoders(lambda: Halves([], asked), 1), linger_s=0.05), large)
    assert asked == list("01234") and all((found := again.of(entry)) and found.whole for entry in large.entries()[0])


def test_pixels_that_break_the_decoder_are_told_by_page_and_report(large: ImageSet) -> None:
    """Although the first look went well."""
    bad = DatasetError(["Image 'x.jpg' crashes the program that reads it."])
    looks = renewed(Looks(large, Decoders(lambda: Halves([bad], []), 1), linger_s=0.05), large)
    told = {found.problems for entry in large.entries()[0] if (found := looks.of(entry))}
    assert told == {tuple(bad.problems)} and looks.progress() == Progress(5, 5)
    found = scan([str(large.folder)], captions=CaptionSource(trigger="x"), repeats=1)
    assert found.samples == () and found.problems == tuple(bad.problems)


def test_a_program_that_does_not_start_again_costs_no_facts(large: ImageSet) -> None:
    asked: list[str] = []
    looks = renewed(Looks(large, Decoders(lambda: Halves([NoReaderError(["No."])], asked), 1), linger_s=0.05), large)
    assert asked == ["0"] and all((found := looks.of(entry)) and found.facts for entry in large.entries()[0])


def test_the_index_is_not_written_once_for_each_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Catalogue(tmp_path).create("many")
    for number in range(60):
        (dataset.folder / f"{number}.jp_").write_bytes(b"x")
    written: list[int] = []
    write = looked.write
    monkeypatch.setattr(looked, "write", lambda folder, found: (written.append(len(found)), write(folder, found)))
    monkeypatch.setattr(looked, "SAVE_S", 1e9)
    renewed(Looks(dataset, Decoders(lambda: Halves([], []), 1), linger_s=0.05), dataset)
    assert len(written) == 2, "once with all facts, and once with all pixels"


# --- before other processes decode them


def test_the_report_waits_for_no_pixels_and_training_does(
    large: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini_checkpoint: Path
) -> None:
    renewed(Looks(large, Decoders(lambda: Halves([NotNowError(["Later."])], []), 1), linger_s=0.05), large)
    made: list[str] = []
    monkeypatch.setattr(Reader, "picture", lambda self, path: (made.append(path.name[0]), Picture(Size(1200, 1600), "0" * 64))[1])
    config = small_config(large.folder, tmp_path, trigger="ohwx")
    found = look(config, StandaloneHost(mini_checkpoint, tmp_path))
    assert found.problems == () and found.plan is not None and made == []
    assert len(found.checked().samples) == 5 and sorted(made) == list("01234")
    found.checked()
    assert len(made) == 5, "and each only once"


def test_training_does_not_begin_with_pixels_that_break_the_decoder(
    large: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini_checkpoint: Path
) -> None:
    renewed(Looks(large, Decoders(lambda: Halves([NotNowError(["Later."])], []), 1), linger_s=0.05), large)

    def broken(self: Reader, path: Path) -> Picture:
        raise DatasetError([f"Image {path.name!r} crashes the program that reads it."])

    monkeypatch.setattr(Reader, "picture", broken)
    found = look(small_config(large.folder, tmp_path, trigger="ohwx"), StandaloneHost(mini_checkpoint, tmp_path))
    with pytest.raises(ConfigError, match="crashes the program"):
        found.checked()


def test_whoever_decodes_a_photo_here_has_it_decoded_apart_before(large: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A captioner by `checked_picture`, and what looks for faces too; a file that is gone meanwhile is told."""
    renewed(Looks(large, Decoders(lambda: Halves([NotNowError(["Later."])], []), 1), linger_s=0.05), large)
    made: list[str] = []
    picture_of = Reader.picture
    monkeypatch.setattr(Reader, "picture", lambda self, path: (made.append(path.name[0]), picture_of(self, path))[1])
    entries, _ = large.entries()
    with Readers() as readers:
        assert checked_picture(entries[1].path, readers, whole=False).sha256 == "0" * 64 and made == []
        assert checked_picture(entries[1].path, readers).sha256 != "0" * 64 and made == ["1"]
    sizes = {entry.place: Size(1200, 1600) for entry in entries[2:]}
    entries[4].path.unlink()
    crops = crop_edits(entries[2:], sizes, "focal", target=Size(512, 512), autocrop=lambda image, size: None)
    assert made == ["1", "2", "3"] and "'4.jpg' cannot be read" in crops.problems[-1]
    assert decoded_whole([]) == []


# --- arriving


def test_an_upload_reads_of_the_others_no_more_than_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(app_in(tmp_path), tmp_path)
    dataset = api.made()
    api.get(dataset)
    made: list[str] = []
    entry = ImageSet._entry
    monkeypatch.setattr(ImageSet, "_entry", lambda self, *of: (made.append(of[1]), entry(self, *of))[1])
    for number in range(8):
        api.upload(dataset, f"{number}.png", picture(seed=number))
    assert made == [f"{number}.png" for number in range(8)]
    assert len(api.looked_at(dataset)["images"]) == 8


@pytest.mark.parametrize("sizes", [[], [0], [5], [3, 0, 4, 9, 1], [1] * 40, [100]])
def test_pieces_of_an_upload_are_its_bytes_and_the_first_comes_at_once(sizes: list[int]) -> None:
    chunks = [bytes([65 + number % 26]) * size for number, size in enumerate(sizes)]

    async def sent() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def pieces() -> list[bytes]:
        return [piece async for piece in in_pieces(sent(), 10)]

    found = asyncio.run(pieces())
    assert b"".join(found) == b"".join(chunks)
    assert found[:1] == [chunk for chunk in chunks if chunk][:1]
    assert all(len(piece) >= 10 for piece in found[1:-1])


def test_a_photo_without_caption_has_no_tokens_and_waits_for_no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_lora.config.text import TextConfig
    from lib_lora.data.tokens import load_tokenizer, plain_ids
    from lib_lora.datasets import caption_tokens

    assert plain_ids(load_tokenizer(), "") == []
    monkeypatch.setattr(caption_tokens, "load_tokenizer", lambda: pytest.fail("the vocabulary was read"))
    assert token_counts([None, "", " \n"], TextConfig()) == [0, 0, 0]
