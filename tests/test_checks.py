"""What is told of images: each with a reason and a remedy, and which of several is enough."""

from __future__ import annotations

import io
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lib_lora.config.groups import build_config
from lib_lora.data.buckets import Placement
from lib_lora.data.decoder_main import answer_to
from lib_lora.data.edits import ImageEdit
from lib_lora.data.folders import Folder
from lib_lora.data.image_facts import ImageFacts
from lib_lora.data.sizes import Crop, Size
from lib_lora.datasets import checks
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.checks import Notice, files_beside, leave_out_duplicates, lone_captions, notices
from lib_lora.datasets.decoders import Decoders
from lib_lora.datasets.duplicates import NEAR, Group, duplicates, is_near
from lib_lora.datasets.frames import placement_in
from lib_lora.datasets.image_set import ImageEntry, image_id
from lib_lora.datasets.looked import Looks
from lib_lora.datasets.looked_index import FileKey, Looked
from tests.conftest import write_picture

ROOT = Path("/images")
PATTERN = 0x0F0F_3C3C_55AA_9966  # a telling hash


def entry(place: str, caption: str | None = "a cat", edit: ImageEdit | None = None) -> ImageEntry:
    return ImageEntry(image_id(place), place, ROOT / place, Folder(ROOT, 1, None, ROOT), edit or ImageEdit(), caption)


def facts(number: int = 0, **changes: object) -> ImageFacts:
    return ImageFacts(Size(600, 800), f"{number:064x}", False, False, PATTERN, 100.0)._replace(**changes)


def looked(found: ImageFacts) -> Looked:
    return Looked(FileKey(1, 1), found.size, found)


def kinds(told: dict[str, list[Notice]]) -> dict[str, list[str]]:
    return {place: [notice.kind for notice in found] for place, found in told.items()}


def looks_of(folder: Path, tmp_path: Path) -> dict[str, ImageFacts]:
    """The facts of the images in a folder, from the decoder's own code."""
    found = {}
    for path in sorted(folder.iterdir()):
        said = answer_to({"path": str(path), "thumbnail": str(tmp_path / "t.jp_"), "side": 64})
        found[path.name] = ImageFacts(
            Size(*said["size"]), said["sha256"], said["turned"], said["transparent"], int(said["hash"], 16), said["sharpness"]
        )  # fmt: skip
    return found


def photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Shapes with finer and finer details on them, as many in a small picture as in a large one."""
    rng, pixels = np.random.default_rng(seed), np.zeros((height, width, 3))
    for octave in range(7):
        cells = rng.integers(0, 255, (min(6 << octave, height), min(8 << octave, width), 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)) * 0.85**octave
    return Image.fromarray((pixels * 0.22).clip(0, 255).astype(np.uint8))


# --- duplicates


def test_copies_and_nearly_equal_photos_are_found_and_others_are_not(tmp_path: Path) -> None:
    """Real pictures: the same file, a smaller one saved again, a lighter one; ten others."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(10):
        photo(seed).save(folder / f"{seed}.png")
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    photo(4).resize((200, 150)).save(folder / "smaller.jpg", quality=70)
    photo(5).point(lambda value: value * 0.9 + 15).save(folder / "lighter.png")
    found = looks_of(folder, tmp_path)
    groups = duplicates([entry(name) for name in found], found)
    assert {(frozenset([group.keep, *group.others]), group.exact) for group in groups} == {
        (frozenset({"3.png", "copy.png"}), True),
        (frozenset({"4.png", "smaller.jpg"}), False),
        (frozenset({"5.png", "lighter.png"}), False),
    }
    assert next(group for group in groups if "smaller.jpg" in group.others).keep == "4.png"


def test_plain_images_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """Their hashes are equal and say nothing: white, black, and a gradient."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (64, 64), "white").save(folder / "white.png")
    Image.new("RGB", (64, 64), "black").save(folder / "black.png")
    Image.linear_gradient("L").rotate(90).save(folder / "ramp.png")
    found = looks_of(folder, tmp_path)
    assert duplicates([entry(name) for name in found], found) == []


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ({"hash": PATTERN ^ 0b11111}, True),
        ({"hash": PATTERN ^ 0b111111}, False),
        ({"hash": PATTERN ^ (1 << 63 | 1 << 40 | 1 << 31 | 1 << 12 | 1)}, True),
        ({"size": Size(300, 400)}, True),
        ({"size": Size(800, 600)}, False),
    ],
)
def test_near_is_few_bits_and_the_same_shape(change: dict[str, object], near: bool) -> None:
    pair = {"a": facts(1), "b": facts(2, **change)}
    assert bool(duplicates([entry("a"), entry("b")], pair)) is near is is_near(pair["a"], pair["b"])


def test_every_near_pair_is_found() -> None:
    """Against comparing all pairs: 200 hashes around 40 patterns."""
    rng = random.Random(0)
    patterns = [rng.getrandbits(64) for _ in range(40)]
    found = {}
    for number in range(200):
        bits = rng.choice(patterns)
        for bit in rng.sample(range(64), rng.randrange(5)):
            bits ^= 1 << bit
        found[f"{number:03}"] = facts(number, hash=bits)
    groups = duplicates([entry(place) for place in found], found)
    for group in groups:
        assert all((found[group.keep].hash ^ found[place].hash).bit_count() <= NEAR for place in group.others)
    left = sorted(found.keys() - {place for group in groups for place in group.others})
    pairs = [(a, b) for a in left for b in left if a < b and (found[a].hash ^ found[b].hash).bit_count() <= NEAR]
    assert groups and pairs == []


def test_a_series_is_not_one_image() -> None:
    """Each differs a little from the one before it; those far from the one that is kept stay."""
    found = {str(step): facts(step, hash=PATTERN ^ ((1 << 4 * step) - 1)) for step in range(6)}
    groups = duplicates([entry(place) for place in found], found)
    assert groups == [Group("0", ("1",), False), Group("2", ("3",), False), Group("4", ("5",), False)]


def test_the_one_with_a_caption_is_kept_then_the_larger_then_the_sharper_then_the_first() -> None:
    pair = {"a": facts(1), "b": facts(2)}
    both = [entry("a"), entry("b")]
    assert duplicates(both, pair) == [Group("a", ("b",), False)]
    pair["b"] = facts(2, sharpness=101.0)
    assert duplicates(both, pair)[0].keep == "b"
    pair["a"] = facts(1, size=Size(1200, 1600))
    assert duplicates(both, pair)[0].keep == "a"
    assert duplicates([entry("a", " "), entry("b")], pair)[0].keep == "b"


def test_one_click_leaves_out_all_but_one_and_keeps_what_else_was_edited() -> None:
    found = {"a": facts(1), "a2": facts(1), "a3": facts(1), "near": facts(2, hash=PATTERN ^ 3), "other": facts(3, hash=~PATTERN & (1 << 64) - 1)}  # fmt: skip
    entries = [entry(place) for place in found]
    entries[1] = entry("a2", edit=ImageEdit(caption="kept", cut=(0, 1)))
    edits = leave_out_duplicates(entries, found)
    assert edits == {
        "a2": ImageEdit(left_out=True, caption="kept", cut=(0, 1)),
        "a3": ImageEdit(left_out=True),
        "near": ImageEdit(left_out=True),
    }
    after = [replace(one, edit=edits.get(one.place, one.edit)) for one in entries]
    assert leave_out_duplicates(after, found) == {} and duplicates(after, found) == []


def test_equal_files_that_are_near_a_better_one_are_all_left_out() -> None:
    found = {"a": facts(1), "a2": facts(1), "better": facts(2, size=Size(1200, 1600))}
    entries = [entry(place) for place in found]
    assert set(leave_out_duplicates(entries, found)) == {"a", "a2"}
    told = checks.duplicate_notices(entries, found)
    assert {place: [notice.remedy for notice in notes][0] for place, notes in told.items()}["better"] == "this is the one to keep"
    assert all(len(notes) == 1 for notes in told.values()) and "'better'" in told["a"][0].why


def test_two_crops_of_one_file_are_two_images() -> None:
    found = {"a": facts(1), "b": facts(1)}
    assert duplicates([entry("a"), entry("b", edit=ImageEdit(crop=Crop(0, 0, 100, 100)))], found) == []
    assert duplicates([entry("a"), entry("b", edit=ImageEdit(left_out=True))], found) == []


def test_5000_images_take_a_second() -> None:
    rng = random.Random(0)
    found = {str(number): facts(number, hash=rng.choice([0, rng.getrandbits(64)])) for number in range(5000)}
    entries = [entry(place) for place in found]
    started = time.monotonic()
    duplicates(entries, found)
    assert time.monotonic() - started < 5  # a busy machine


# --- single images


def test_a_good_image_is_told_of_nothing() -> None:
    config = build_config({"resolution": 512})
    entries = [entry(f"{number}.png") for number in range(6)]
    known = {one.place: looked(facts(i, hash=i * 0x1234567_89ABCDEF % 2**64)) for i, one in enumerate(entries, start=1)}
    placements = {one.place: placement_in(Size(600, 800), one.edit, config) for one in entries}
    assert kinds(notices(entries, known, placements)) == {}


def test_each_kind_is_told_of_its_image_alone() -> None:
    config = build_config({"resolution": 512})
    found = {f"{number}.png": facts(number, hash=random.Random(number).getrandbits(64)) for number in range(10)}
    found["1.png"] = found["1.png"]._replace(turned=True)
    found["2.png"] = found["2.png"]._replace(transparent=True)
    found["3.png"] = found["3.png"]._replace(sharpness=5.0)
    found["4.png"] = found["4.png"]._replace(size=Size(18, 24))
    found["5.png"] = found["5.png"]._replace(size=Size(500, 4000))
    known = {place: looked(one) for place, one in found.items()}
    known["6.png"] = Looked(FileKey(1, 1), problems=("Image '6.png' cannot be read (cut off); replace or remove it.",))
    entries = [entry(place, None if place == "7.png" else "") if place in ("7.png", "8.png") else entry(place) for place in found]
    entries[9] = entry("9.png", None, ImageEdit(left_out=True))
    placements = {one.place: placement_in(found[one.place].size, one.edit, config) for one in entries}
    told = notices(entries, known, placements)
    assert kinds(told) == {
        "1.png": ["turned"], "2.png": ["transparent"], "3.png": ["blurred"], "4.png": ["small"], "5.png": ["narrow"],
        "6.png": ["unreadable"], "7.png": ["no caption"], "8.png": ["no caption"],
    }  # fmt: skip
    assert all(
        notice.why and notice.remedy and notice.text.endswith(".") and "\n" not in notice.text
        for notes in told.values()
        for notice in notes
    )
    assert told["6.png"][0].text == "Image '6.png' cannot be read (cut off); replace or remove it."
    assert told["7.png"][0].why == "Has no caption" and told["8.png"][0].why == "Its caption is empty"


def test_how_much_an_image_is_enlarged_and_cut_is_told_in_numbers() -> None:
    """Worked out by hand: 24 x 18 to 683 x 512 is 28.4 times; 4:1 at one square size keeps a quarter."""
    config = build_config({"resolution": 512, "enable_bucket": False})
    small = checks.enlarged(Size(18, 24), placement_in(Size(18, 24), ImageEdit(), config))
    assert small is not None and small.why == "Is 24x18 and is enlarged 28.4 times to fill 512x512"
    wide = checks.narrow(Size(1000, 4000), placement_in(Size(1000, 4000), ImageEdit(), config))
    assert wide is not None and wide.why == "Is 4000x1000, so wide that 75% of it are cut away"
    high = checks.narrow(Size(4000, 1000), placement_in(Size(4000, 1000), ImageEdit(), config))
    assert high is not None and "so narrow that 75%" in high.why
    for size in (Size(512, 512), Size(1000, 1100)):
        placement = placement_in(size, ImageEdit(), config)
        assert checks.enlarged(size, placement) is None and checks.narrow(size, placement) is None
    tiny = checks.narrow(Size(40, 50), placement_in(Size(40, 50), ImageEdit(), build_config({"bucket_no_upscale": True})))
    assert tiny is not None and "too small" in tiny.why


def test_the_chosen_part_counts_not_the_whole_image() -> None:
    config = build_config({"resolution": 512})
    one = entry("a.png", edit=ImageEdit(crop=Crop(0, 0, 100, 100)))
    known = {"a.png": looked(facts(size=Size(2000, 2000)))}
    told = notices([one], known, {"a.png": placement_in(Size(2000, 2000), one.edit, config)})
    assert [notice.why for notice in told["a.png"]] == ["Is 100x100 and is enlarged 5.1 times to fill 512x512"]


def test_blur_is_told_against_the_others_of_real_photos_alone(tmp_path: Path) -> None:
    """A blurred photo among nine; none if all are as soft; none of four images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(9):
        photo(seed).save(folder / f"{seed}.png")
    photo(9).filter(ImageFilter.GaussianBlur(4)).save(folder / "soft.png")
    found = looks_of(folder, tmp_path)

    def told(names: list[str]) -> list[str]:
        some = {name: looked(found[name]) for name in names}
        told = notices([entry(name) for name in names], some, {})
        return [place for place, notes in told.items() if "blurred" in [notice.kind for notice in notes]]

    assert told(list(found)) == ["soft.png"]
    assert told(["0.png", "1.png", "2.png", "soft.png"]) == []
    soft = {name: one._replace(sharpness=found["soft.png"].sharpness) for name, one in found.items()}
    assert notices([entry(name) for name in soft], {name: looked(one) for name, one in soft.items()}, {}) == {}


def test_an_image_that_is_not_known_yet_is_told_of_its_caption_alone() -> None:
    entries = [entry("a.png", None), entry("b.png")]
    assert kinds(notices(entries, {}, {"b.png": Placement(Size(0, 0), Size(1, 1))})) == {"a.png": ["no caption"]}


# --- captions


def test_caption_files_without_image_and_empty_ones_are_told(tmp_path: Path) -> None:
    images = Catalogue(tmp_path / "sets").create("cats")
    for name in ("a.png", "b.png"):
        images.add(name, write_picture(tmp_path / name))
    for name, text in (("a.txt", " \n"), ("lost.txt", "x"), ("old.caption", "x")):
        (tmp_path / name).write_text(text)
        images.add(name, tmp_path / name)
    (images.folder / "._a.txt").write_text("of another system")
    captions, files = files_beside([images.folder])
    assert [notice.why for notice in lone_captions(captions, files)] == [
        "Caption file 'lost.txt' has no image",
        "Caption file 'old.caption' has no image",
    ]
    entries, _ = images.entries()
    told = notices(entries, {}, {}, set(captions))
    assert [told[name][0].why for name in ("a.png", "b.png")] == ["Its caption is empty", "Has no caption"]
    assert files_beside([tmp_path / "none"]) == ([], [])


def test_the_files_beside_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").touch()
    monkeypatch.setattr(checks, "MAX_ENTRIES", 7)
    assert len(files_beside([tmp_path, tmp_path])[0]) == 7


# --- all of it


def test_twelve_phone_photos_are_told_of_what_is_true(tmp_path: Path) -> None:
    """From files to notices: one turned, a copy, a near copy, one cut off, a tiny one, a panorama, six good ones."""
    images = Catalogue(tmp_path / "sets").create("phone")
    exif = Image.Exif()
    exif[0x0112] = 6

    def add(name: str, picture: Image.Image, **save: object) -> bytes:
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=95, **save)
        (tmp_path / name).write_bytes(content.getvalue())
        images.add(name, tmp_path / name)
        (tmp_path / name).write_text("a photo")
        images.add(name.replace(".jpg", ".txt"), tmp_path / name)
        return content.getvalue()

    whole = [add(f"good{seed}.jpg", photo(seed, 400, 300)) for seed in range(6)]
    add("turned.jpg", photo(6, 400, 300), exif=exif)
    (tmp_path / "copy.jpg").write_bytes(whole[0])
    images.add("copy.jpg", tmp_path / "copy.jpg")
    add("near.jpg", photo(1, 400, 300).resize((320, 240)))
    (tmp_path / "cut_off.jpg").write_bytes(whole[2][:-5000])
    images.add("cut_off.jpg", tmp_path / "cut_off.jpg")
    add("tiny.jpg", photo(7, 24, 18))
    add("panorama.jpg", photo(8, 2000, 250))
    entries, _ = images.entries()
    looks = Looks(images, Decoders(), linger_s=0.05)
    looks.renew(entries)
    assert looks.wait(60)
    known = {one.place: found for one in entries if (found := looks.of(one))}
    config = build_config({"resolution": 256, "min_bucket_reso": 128, "bucket_reso_steps": 32})
    placements = {one.place: placement_in(found.size, one.edit, config) for one in entries if (found := known[one.place]).size}
    told = kinds(notices(entries, known, placements))
    tiny = told.pop("tiny.jpg")
    assert "small" in tiny and set(tiny) <= {"small", "blurred"}
    assert told == {
        "turned.jpg": ["turned"], "copy.jpg": ["duplicate", "no caption"], "good0.jpg": ["duplicate"], "good1.jpg": ["duplicate"],
        "near.jpg": ["duplicate"], "cut_off.jpg": ["unreadable", "no caption"], "panorama.jpg": ["narrow"],
    }  # fmt: skip
    facts = {place: found.facts for place, found in known.items() if found.facts}
    images.change(leave_out_duplicates(entries, facts), "leave out duplicates")
    assert [one.place for one in images.entries()[0] if one.edit.left_out] == ["copy.jpg", "near.jpg"]
    assert images.undo() == "leave out duplicates" and not any(one.edit.left_out for one in images.entries()[0])
