"""Foreign files: bounded in size, depth and time, answered with sentences, and never executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from lib_lora.config.groups import all_options, build_config
from lib_lora.config.options import bounds_problem, parse_typed
from lib_lora.config.prompts import MAX_BYTES as MAX_PROMPT_BYTES
from lib_lora.config.prompts import read_prompts
from lib_lora.config.rules import config_problems
from lib_lora.config.toml_reader import MAX_DEPTH
from lib_lora.data.captions import MAX_BYTES as MAX_CAPTION_BYTES
from lib_lora.data.captions import CaptionSource, caption_file
from lib_lora.data.folders import FolderSearch
from lib_lora.data.image_files import image_size
from lib_lora.data.image_headers import MAX_SCANS, _counted
from lib_lora.data.images import load_alpha, load_pixels
from lib_lora.errors import ConfigError, DatasetError, LoraFileError, ModelError
from lib_lora.files.lora_file import read
from lib_lora.files.plain_values import StateError, from_plain
from lib_lora.files.safetensors_header import MAX_HEADER_BYTES
from lib_lora.files.state_file import TENSORS, VALUES, read_tensors, read_values, write_state
from lib_lora.hosts.checkpoint import says_v
from lib_lora.kohya.files import MAX_BYTES
from lib_lora.kohya.importing import import_file
from lib_lora.kohya.table import key_table
from lib_lora.output.card import MAX_CARD_BYTES, write_card
from tests.conftest import write_picture


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def settings(tmp_path: Path, text: str, suffix: str = ".json") -> Path:
    path = tmp_path / f"settings{suffix}"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "suffix", "told"),
    [
        ('{"a": "' + "x" * MAX_BYTES + '"}', ".json", "is larger than 256 KB"),
        ('{"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", ".json", "nested more than 20 levels deep"),
        ('{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH, ".json", "nested more than 20 levels deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", ".json", "cannot be read as JSON"),
        ("a = " + "[" * 100_000 + "]" * 100_000, ".toml", "cannot be read as TOML"),
        ("a." * 100_000 + "a = 1", ".toml", "nested more than 20 levels deep"),
        ("x = {" + "'a b.c d' . " * 5000 + "a = 1}", ".toml", "nested more than 20 levels deep"),
        ("[" + "a." * 100_000 + "a]\nb = 1", ".toml", "nested more than 20 levels deep"),
        ('{"network_dim": 1' + "0" * 400 + "}", ".json", "more than 64 bits"),
        ("network_dim = -1" + "0" * 400, ".toml", "more than 64 bits"),
    ],
)
@pytest.mark.case(55)
def test_settings_are_bounded(text: str, suffix: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        import_file(settings(tmp_path, text, suffix))


def test_settings_up_to_the_bounds_are_read(tmp_path: Path) -> None:
    deep = MAX_DEPTH - 1  # the whole is one
    text = json.dumps({"network_dim": 7, "a": "x" * (MAX_BYTES - 200)})[:-1] + ', "b": ' + "[" * deep + "]" * deep + "}"
    assert import_file(settings(tmp_path, text)).flat["rank"] == 7
    text = 'a.b.c = "A cat... A dog. A. B. C."\nbetas = [' + "0.5, " * 50 + "]\nnetwork_dim = 7\nx = '" + "A cat. " * 50 + "'"
    assert import_file(settings(tmp_path, text, ".toml")).flat["rank"] == 7


VALUES_OF_ALL_KINDS: list[Any] = [
    None, True, -1, 0, 1e309, float("nan"), 2**63 - 1, "", "x" * 1000, [], [[]], {}, {"a": 1}, [1, "a", None], "1e999", "١٢", "\x00",
    "<b>", "a=b=c", "(1,2", "9" * 5000, [{"a": []}], {"__proto__": 1}, "'",
]  # fmt: skip


def test_no_value_of_any_key_is_an_exception(tmp_path: Path) -> None:
    names = sorted(
        {*key_table(), *(opt.name for opt in all_options()), "datasets", "general", "sd_webui_train_lora", "__proto__"}
    )
    rng, seen = random.Random(1), set()
    for number in range(len(VALUES_OF_ALL_KINDS) * 2):
        given = {name: VALUES_OF_ALL_KINDS[(place + number) % len(VALUES_OF_ALL_KINDS)] for place, name in enumerate(names)}
        if number % 2:
            given = {name: rng.choice(VALUES_OF_ALL_KINDS) for name in names}
        seen |= {(name, repr(value)) for name, value in given.items()}
        found = import_file(settings(tmp_path, json.dumps(given)), follow=False)
        assert json.dumps(found.report(), allow_nan=False)
        assert {"data", "network_weights", "resume", "out", "name"}.isdisjoint(found.flat)
    assert len(seen) > 8000
    for value in VALUES_OF_ALL_KINDS:
        shape = {"datasets": [{"subsets": [{"image_dir": value, "num_repeats": value}], "resolution": value}], "general": value}
        import_file(settings(tmp_path, json.dumps(shape)), follow=False)


@pytest.mark.parametrize("opt", all_options(), ids=lambda opt: opt.name)
def test_no_value_of_any_option_is_an_exception(opt: Any) -> None:
    for value in [*VALUES_OF_ALL_KINDS, 10**400, -(10**5000)]:
        try:
            told = bounds_problem(opt, parse_typed(opt, value)) or ""
        except ValueError as error:
            told = str(error)
        assert not told or (opt.title in told and len(told) < 900)


def test_numbers_have_bounds() -> None:
    wrong = {"rank": [0, -1, 10**9], "unet_lr": ["NaN", "inf", -1], "batch_size": [0, 10**6], "epochs": [0, 10**9],
             "steps": [-1, 10**12], "resolution": [7, 63, 99_999], "repeats": [0, 10**9], "seed": [-1, 2**65]}  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ConfigError, match=rf"\({name}\): got "):
                build_config({name: value})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: (1 << 40).to_bytes(8, "little") + b"{}", "its header has"),
        (lambda: (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{" + b" " * MAX_HEADER_BYTES, "its header has"),
        (lambda: pickle.dumps({"a": 1}), "not a readable safetensors"),
        (lambda: as_safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, 4), "not a readable safetensors"),
        (lambda: as_safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"a": [1]}}, 4), "not a readable"),
        (lambda: as_safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, 4), "not a readable safetensors"),
        (lambda: as_safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 8), "not a readable safetensors"),
        (lambda: _raw(b"[" * 200_000), "not a readable safetensors"),
        (lambda: _raw(b'{"a": NaN}'), "not a readable safetensors"),
    ],
)  # fmt: skip
@pytest.mark.case(53)
def test_loras_are_bounded(make: Callable[[], bytes], told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(make())
    with pytest.raises(LoraFileError, match=told):
        read(path)


def as_safetensors(entries: dict[str, Any], data: int) -> bytes:
    return _raw(json.dumps(entries).encode()) + bytes(data)


def _raw(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.case(53)
def test_mutated_loras_are_answered_with_a_sentence(tmp_path: Path) -> None:
    whole, rng, path = (
        save({"x.lora_down.weight": torch.zeros(2, 3)}, {"ss_a": "b"}),
        random.Random(2),
        tmp_path / "a.safetensors",
    )
    refused = 0
    for _ in range(500):
        path.write_bytes(mutated(whole, rng))
        try:
            read(path)
        except LoraFileError:
            refused += 1
    assert refused > 250


def mutated(content: bytes, rng: random.Random, places: int = 0) -> bytes:
    """Some bytes changed, taken away or added; only among the first `places`, if given."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(min(places or len(changed), len(changed)))
        kind = rng.random()
        if kind < 0.7:
            changed[place] = rng.choice([0, 255, 34, 123, rng.randrange(256)])
        elif kind < 0.85:
            del changed[place : place + rng.randrange(1, 20)]
            changed = changed or bytearray(b"x")
        else:
            changed[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.case(51)
def test_nothing_in_a_lora_is_run(suffix: str, old: bool, tmp_path: Path) -> None:
    path, canary = tmp_path / f"a{suffix}", tmp_path / "canary"
    torch.save({"a": Canary(canary)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(LoraFileError, match="not a readable safetensors"):
        read(path)
    assert not canary.exists()
    torch.load(path.replace(tmp_path / "b.pt"), weights_only=False)
    assert canary.exists(), "the bird sings when it is unpickled"


@pytest.mark.parametrize("name", [VALUES, TENSORS])
@pytest.mark.case(51)
def test_nothing_in_a_state_is_run(name: str, tmp_path: Path) -> None:
    folder, canary = tmp_path / "state", tmp_path / "canary"
    write_state(folder, {"state": 1}, {"a": torch.ones(1)})
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(StateError, match="damaged"):
        read_tensors(folder, read_values(folder))
    assert not canary.exists()


@pytest.mark.case(53)
def test_states_are_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    write_state(folder, {"state": 1}, {"a": torch.ones(1)})
    assert read_tensors(folder, read_values(folder))
    (folder / VALUES).write_text('{"format": 1, "a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(StateError, match="damaged"):
        read_values(folder)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(StateError, match="nested more than 64 levels deep"):
        from_plain(deep, {})


@pytest.mark.parametrize(
    "content", ['{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '"' + "x" * MAX_CARD_BYTES + '"', "[", "3", "\xff"]
)
def test_cards_are_bounded(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    path = write_card(tmp_path / "a.safetensors", activation_text="x", sd_version="SD1", preferred_weight=1.0)
    assert json.loads(path.read_text())["activation text"] == "x" and (tmp_path / "a.json.bad").is_file()


def test_captions_and_prompts_are_bounded(tmp_path: Path) -> None:
    image = write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("x" * MAX_CAPTION_BYTES)
    found = caption_file(image, CaptionSource(), tmp_path)
    assert found is not None and found.text(CaptionSource()) == "x" * MAX_CAPTION_BYTES
    (tmp_path / "a.txt").write_text("x" * (MAX_CAPTION_BYTES + 1))
    with pytest.raises(DatasetError, match="'a.txt' is larger than 1 MB"):
        caption_file(image, CaptionSource(), tmp_path)
    (tmp_path / "prompts.txt").write_text("x" * (MAX_PROMPT_BYTES + 1))
    with pytest.raises(ValueError, match="larger than 1 MB"):
        read_prompts(str(tmp_path / "prompts.txt"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.case(49)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.json", "a.safetensors", "a.txt", "b.png", "b.txt"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match="it is not a file"):
        import_file(tmp_path / "a.json")
    with pytest.raises(LoraFileError, match="it is not a file"):
        read(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="it is not a file"):
        read_prompts(str(tmp_path / "a.txt"))
    from lib_lora.data.dataset import scan

    found = scan([str(tmp_path)], captions=CaptionSource(), repeats=1)
    assert not found.samples and "contains no" in found.problems[0]
    assert caption_file(write_picture(tmp_path / "b.jpg"), CaptionSource(), tmp_path) is None
    os.mkfifo(tmp_path / VALUES)
    with pytest.raises(StateError, match="contains no state.json"):
        read_values(tmp_path)


def test_a_jpeg_of_endless_scans_is_refused(tmp_path: Path) -> None:
    """Twelve bytes make the decoder go over the whole picture once more."""
    plain = io.BytesIO()
    Image.new("RGB", (64, 64), (10, 20, 30)).save(plain, "JPEG", progressive=True)
    content = plain.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    path = tmp_path / "a.jpg"
    usual = _counted(content, MAX_SCANS)[0]
    for more, refused in ((MAX_SCANS - usual, False), (MAX_SCANS - usual + 1, True), (5000, True)):
        path.write_bytes(content[:-2] + last * more + content[-2:] + last * 500)  # what stands behind the end is not looked at
        for look in (image_size, load_pixels, load_alpha):
            if refused:
                with pytest.raises(DatasetError, match="more than 100 scans"):
                    look(path)
            else:
                look(path)
    assert 5 < usual < 15


def test_scans_are_counted_by_structure() -> None:
    segment = b"\xff\xe1\x00\x0a" + b"\xff\xda" * 4  # inside a segment, and escaped inside a scan, it is no marker
    one = b"\xff\xda\x00\x02" + b"data\xff\x00\xda\xff\xd0more"
    assert _counted(b"\xff\xd8" + segment + one + b"\xff\xff" + one[1:] + b"\xff\xd9", MAX_SCANS)[0] == 2
    assert not any(_counted(content, MAX_SCANS)[0] for content in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1"))


@pytest.mark.case(58)
def test_mutated_pictures_are_answered_with_a_sentence(tmp_path: Path) -> None:
    rng, path = random.Random(3), tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (20, 25, 4), dtype=np.uint8)
    originals = []
    for kind, mode, options in (("PNG", "RGBA", {}), ("PNG", "P", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}),
                                ("WEBP", "RGBA", {}), ("BMP", "P", {})):  # fmt: skip
        content = io.BytesIO()
        image = Image.fromarray(pixels)
        exif = Image.Exif()
        exif[0x0112], exif[0x9286] = 6, b"x" * 50
        extra = {} if kind == "BMP" else {"exif": exif}
        (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(content, kind, **extra, **options)
        originals.append(content.getvalue())
    refused = 0
    for number in range(600):
        content_now = mutated(originals[number % len(originals)], rng)
        path.write_bytes(_with_checksums(content_now) if content_now.startswith(b"\x89PNG") else content_now)
        for look in (image_size, load_pixels, load_alpha):
            try:
                look(path)
            except DatasetError:
                refused += 1
    assert refused > 200


def _with_checksums(png: bytes) -> bytes:
    """Chunks with right checksums, so that what is inside is looked at."""
    fixed, place = png[:8], 8
    while place + 12 <= len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        body = png[place + 4 : place + 8 + length]
        fixed += png[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return fixed


def test_numbers_of_thousands_of_digits_are_told(tmp_path: Path) -> None:
    """Python makes no number of more than 4,300 digits, and is slow before."""
    for digits in ("9" * 5000, "0" * 5000, "٣" * 30):
        problems: list[str] = []
        assert list(FolderSearch("Images (data)", 1, problems, []).folders(f"{tmp_path}|{digits}")) == []
        assert "must have the number of repeats after the bar" in problems[0] and len(problems[0]) < 600
        turning = build_config({"adapter_type": "diag-oft", "block_dims": digits, "rank": 4})
        assert [problem for problem in config_problems(turning) if len(problem) < 10_000]


def test_texts_have_a_length() -> None:
    for name, raw in (
        ("trigger", "x" * 2**21),
        ("optimizer_args", ["x"] * 20_000),
        ("data", ["x" * 2**21]),
    ):
        with pytest.raises(ConfigError, match="must have at most"):
            build_config({name: raw})


@pytest.mark.parametrize(
    "text",
    ["x: 1\n" * 100_000, "[" * 60_000, "model: 3", "\xff", "model: {params: [1]}"],
    ids=["long", "deep", "odd", "letters", "list"],
)
def test_a_configuration_beside_a_checkpoint_is_bounded(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match="cannot be read"):
        says_v(tmp_path / "m.safetensors", {})
