"""Cases 49, 52, 55, 57, 58, 69: arbitrary settings, numbers and pictures, and unusual machines."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from lib_lora.check import find_images
from lib_lora.config.groups import all_options, build_config
from lib_lora.data import dataset, folders
from lib_lora.data import masks as masks_room
from lib_lora.data.decoder_main import READY
from lib_lora.data.decoder_process import Reader, Readers
from lib_lora.data.image_files import NotNowError, Picture
from lib_lora.data.images import load_pixels
from lib_lora.data.sizes import Size
from lib_lora.errors import ConfigError, DatasetError
from lib_lora.events import Finished
from lib_lora.kohya.importing import import_file
from tests.conftest import write_picture
from tests.house import House, sentences

ROOT = Path(__file__).parents[2]
ODD = [
    None,
    True,
    -1,
    0,
    1e309,
    float("nan"),
    10**30,
    "",
    "x" * 1000,
    "1e309",
    "NaN",
    [],
    [1, [2]],
    {},
    {"a": 1},
    "../../etc/passwd",
    "\u202e\0",
]
Figure = Callable[[str], None]


@pytest.mark.case(55)
def test_odd_values_in_files_of_kohya(tmp_path: Path, long: bool, figure: Figure) -> None:
    """Every known key with every odd value, unknown keys and __proto__: a report or sentences, never an exception; paths are not taken."""
    keys = sorted({name for opt in all_options() for name in (opt.name, opt.declaration.kohya) if name}) + [
        "__proto__",
        "constructor",
        "pretrained_model_name_or_path",
        "output_dir",
    ]
    rng, path = random.Random(55), tmp_path / "a.json"
    count = 3000 if long else 150
    for _ in range(count):
        found = {rng.choice(keys): rng.choice(ODD) for _ in range(rng.randint(1, 12))}
        path.write_text(json.dumps(found))
        try:
            report = import_file(path).report()
        except ConfigError as error:
            assert sentences(error)
        else:
            named = [entry["key"] for group in ("used", "not_supported", "ignored", "unknown") for entry in report[group]]
            assert {key for key, value in found.items() if not isinstance(value, dict)} <= set(named)  # a table is a section
            assert not report["config"].get("out") and not report["config"].get("checkpoint")
    figure(f"{count} files")


@pytest.mark.case(55)
@pytest.mark.parametrize("content", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[]", "3", "", "\0", "{'a': 1}"],
                         ids=["deep list", "deep object", "list", "number", "empty", "zero", "no JSON"])  # fmt: skip
def test_files_that_are_no_settings(content: str, tmp_path: Path) -> None:
    """Nested ten thousand deep, of another kind, empty: one sentence."""
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        import_file(tmp_path / "a.json")
    assert len(sentences(caught.value)) == 1


@pytest.mark.case(55)
def test_a_file_of_fifty_megabytes(tmp_path: Path) -> None:
    """50 MB: one sentence."""
    (tmp_path / "a.json").write_text(json.dumps({"a": "x" * 50_000_000}))
    with pytest.raises(ConfigError) as caught:
        import_file(tmp_path / "a.json")
    assert len(sentences(caught.value)) == 1


@pytest.mark.case(57)
@pytest.mark.parametrize(
    ("name", "value"),
    [("rank", 0), ("rank", -1), ("rank", 10**9), ("unet_lr", "nan"), ("unet_lr", float("nan")), ("unet_lr", float("inf")), ("batch_size", 10**6),
     ("epochs", 10**9), ("resolution", 7), ("resolution", 63), ("resolution", 99999), ("steps", -1), ("seed", 2**70)],
)  # fmt: skip
def test_numbers_out_of_range(name: str, value: Any, house: House, quick: Any) -> None:
    """Rank 0, -1, 10^9, rates that are no numbers, batch 10^6, resolution 7, 63, 99999 and others: one sentence that names the option."""
    try:
        config = build_config({name: value})
    except ConfigError as error:
        assert f"({name})" in sentences(error)[0]
        return
    told = house.run(quick(**{name: value})).told
    assert told and any(f"({name})" in text for text in told), (config, told)


def fuzzed(rng: random.Random, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(content))
        kind = rng.randrange(3)
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + 4] = rng.randbytes(4)
        else:
            del content[place : place + rng.randint(1, 16)]
    return bytes(content)


@pytest.mark.case(58)
@pytest.mark.timeout(0)
def test_fuzzed_pictures(house: House, quick: Any, photos: Path, long: bool, figure: Figure) -> None:
    """PNG, JPEG, WEBP with flipped, exchanged and lost bytes, read by the process apart and then here: pixels, or a sentence with the file's name; the last ones of each kind in a run."""
    rng, count, read, wholes = random.Random(58), 20_000 if long else 300, 0, []
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP"):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, kind)
        wholes.append(content.getvalue())
    reader, bad = Reader(), set()
    path = photos / "3_blob" / "a.png"
    for number in range(count):
        path = path.with_name(f"{'abcdefghi'[number % 9]}.png")
        path.write_bytes(fuzzed(rng, wholes[number % 3]))
        bad.discard(path.name)
        try:
            reader.picture(path)
            assert load_pixels(path).shape
            read += 1
        except DatasetError as error:
            assert f"{path.name!r}" in str(error)
            bad.add(path.name)
    reader.close()
    run = house.run(quick())
    assert bad and len(run.told) == len(bad) and all(any(repr(name) in text for text in run.told) for name in bad)
    for name in bad:
        path.with_name(name).unlink()
    assert house.run(quick()).of(Finished)
    figure(f"{count} files, {read} of them readable")


WEAK_DECODER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from lib_lora.data import decoder_main
real = decoder_main.decode
def decode(path, content, *side):
    if path.name == "crash.png": os.abort()
    if path.name == "endless.png": time.sleep(600)
    return real(path, content, *side)
decoder_main.decode = decode
decoder_main.main()
"""


@pytest.mark.case(58)
def test_a_decoder_that_crashes_or_never_ends(house: House, quick: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that crashes, and one that never ends: the file is named, the others are read, and no process is left."""
    for name in ("crash.png", "endless.png"):
        write_picture(photos / "3_blob" / name)
    weak = partial(Reader, (sys.executable, "-c", WEAK_DECODER, str(ROOT)), seconds=5.0)
    monkeypatch.setattr(dataset, "Readers", partial(Readers, weak))
    monkeypatch.setattr(dataset, "_checked", {})
    failed = house.run(quick())
    assert sorted(failed.told) == [
        "Image 'crash.png' crashes the program that reads it; save it again or remove it.",
        "Image 'endless.png' takes longer than 5 s to read; save it again or remove it.",
    ]
    assert psutil.Process().children() == []
    for name in ("crash.png", "endless.png"):
        (photos / "3_blob" / name).unlink()
    assert house.run(quick()).of(Finished)


@pytest.mark.case(58)
def test_a_decoder_ends_when_nobody_waits_any_more(tmp_path: Path) -> None:
    """The program that asked is gone: an idle decoder ends with its input, one that is stuck where no Python runs ends by itself."""
    stuck = WEAK_DECODER.replace("time.sleep(600)", "holds_the_lock(600)").replace(
        "import os, sys, time",
        "import ctypes, os, sys, time\nholds_the_lock = ctypes.PyDLL(None).sleep\nfrom lib_lora.data import decoder_main\ndecoder_main.GRACE_S = 0.5",
    )
    for name in ("endless.png", ""):
        parent = (sys.executable, "-c", stuck, str(ROOT), "0.5")
        child = subprocess.Popen(parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert child.stdin is not None and child.stdout is not None
        assert [child.stdout.readline(), child.stdout.readline()] == ["\n", f"{READY}\n"]
        if name:
            child.stdin.write(json.dumps(str(write_picture(tmp_path / name))) + "\n")
            child.stdin.flush()
            assert child.wait(timeout=30) == 1 and child.stdout.read() == ""
        else:
            child.stdin.close()
            assert child.wait(timeout=30) == 0
        child.stdin, _ = None, child.stdout.close()


@pytest.mark.case(58)
@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/no/such/python",), "No such file or directory"),
        ((sys.executable, "-c", "import no_such_package_of_pillow"), "ModuleNotFoundError: No module named 'no_such_package_of_pillow'"),
        ((sys.executable, "-c", "print('[]')"), "it exits at once"),
        ((sys.executable, "-c", "import time; time.sleep(600)"), "not ready after 1 s"),
    ],
    ids=["no program", "a package is missing", "another program", "hangs"],
)  # fmt: skip
def test_no_picture_is_blamed_for_a_reader_that_does_not_start(
    command: tuple[str, ...], why: str, photos: Path, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process that decodes does not start: one sentence for images, regularisation images and masks, and it is started anew next time."""
    for number in range(20):  # several decoders
        write_picture(photos / "3_blob" / f"{number}.png")
        write_picture(tmp_path / "masks" / f"{number}.png")
    write_picture(tmp_path / "reg" / "1_x" / "a.png")
    started: list[object] = []
    real = subprocess.Popen
    broken = partial(Reader, command, start_s=1.0 if "ready" in why else 30.0)
    images_alone = quick(reg_data=[str(tmp_path / "reg")])
    config = quick(masked_loss=True, mask_data=str(tmp_path / "masks"), reg_data=[str(tmp_path / "reg")])
    monkeypatch.setattr(dataset, "_checked", {})
    for images_are_known in (False, True):
        with monkeypatch.context() as patch:
            for room in (dataset, masks_room):
                patch.setattr(room, "Readers", partial(Readers, broken))
            patch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args) or real(*args, **kwargs))
            told = find_images(config).problems
        start = f"No image can be read: the program that reads them, {command[0]!r}, does not start"
        assert told == (f"{start} ({why}); repair the Python of the webui.",)
        assert len(started) <= dataset.DECODERS + 1 and psutil.Process().children() == []
        if not images_are_known:
            assert find_images(images_alone).problems == ()  # and now the masks alone are left
            started.clear()


@pytest.mark.case(58)
def test_what_others_write_is_no_answer(photos: Path) -> None:
    """A Python that writes lines of its own at its start, and a decoder that writes to the console: sizes come all the same."""
    noisy = WEAK_DECODER.replace("import os", "print('Hello'); print('half a line', end='', flush=True)\nimport os").replace(
        "return real(path, content, *side)",
        "os.write(1, b'[1, 2]\\n'); print('{}', flush=True); os.write(2, b'x' * 10**6); return real(path, content, *side)",
    )
    reader = Reader((sys.executable, "-c", noisy, str(ROOT)))
    try:
        assert [reader.picture(photos / "3_blob" / f"{number}.png") for number in (0, 0, 1)]
    finally:
        reader.close()


@pytest.mark.case(58)
def test_a_reader_that_something_else_ended_is_asked_again(photos: Path, tmp_path: Path) -> None:
    """The process dies at a picture once: the picture is read in another process, and not blamed."""
    dies_once = WEAK_DECODER.replace(
        "return real(path, content, *side)",
        f"p = {str(tmp_path / 'died')!r}\n    os.path.exists(p) or (open(p, 'w').close(), os._exit(9))\n    return real(path, content, *side)",
    )
    reader = Reader((sys.executable, "-c", dies_once, str(ROOT)))
    try:
        assert reader.picture(photos / "3_blob" / "0.png")
    finally:
        reader.close()
    assert (tmp_path / "died").exists()


@pytest.mark.case(58)
def test_a_bad_picture_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report and the run look at the same file: what was found bad is not decoded again, what the system refused is, and so is a mended one."""
    monkeypatch.setattr(dataset, "_checked", {})
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    asked: list[Path] = []
    error: list[type[DatasetError]] = [DatasetError]

    class Scripted(Readers):
        def picture(self, path: Path) -> Picture:
            asked.append(path)
            raise error[0](["Image 'bad.png' is bad."])

    for _ in range(3):
        with pytest.raises(DatasetError, match="is bad"):
            dataset.checked_picture(bad, Scripted())
    assert len(asked) == 1
    bad.write_bytes(b"another")
    error[0] = NotNowError
    for _ in range(3):
        with pytest.raises(DatasetError, match="is bad"):
            dataset.checked_picture(bad, Scripted())
    assert len(asked) == 4
    write_picture(bad)
    with Readers() as readers:
        assert dataset.checked_picture(bad, readers)


@pytest.mark.case(58)
def test_no_picture_is_decoded_here_before_it_was_decoded_apart(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While pictures are checked, none is opened in the webui's own process."""
    monkeypatch.setattr(dataset, "_checked", {})
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("opened here"))
    assert find_images(build_config({"data": [str(photos)], "trigger": "x"})).problems == ()


@pytest.mark.case(69)
def test_a_clock_that_jumps(house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes back an hour between any two looks at it: the run and its files are whole."""
    now = [2e9]

    def jumps() -> float:
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", jumps)
        run = house.run(quick(save_state=True, save_every_n_steps=1))
    assert run.of(Finished)[0].path and not run.told


@pytest.mark.case(69)
@pytest.mark.parametrize("encoding", ["cp936", "ascii"])
def test_consoles_that_cannot_say_it(encoding: str, tmp_path: Path) -> None:
    """A console of cp936 or ASCII, no home folder, a Turkish locale: the answer of a command comes without an exception."""
    (tmp_path / "a.json").write_text(json.dumps({"output_name": "🐱 猫 ı", "network_dim": 4}), encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": encoding, "HOME": "/nonexistent", "LC_ALL": "tr_TR.UTF-8", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-m", "lib_lora", "import-kohya", str(tmp_path / "a.json")], env=env, cwd=ROOT, capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0 and b"Error" not in done.stderr, done.stderr


@pytest.mark.case(49)
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/dev", "'fd' is a link out of 'dev'"),
        ("/proc/self", "'cwd', 'root' are links out of"),
        ("/etc", "contains no PNG"),
        ("/dev/zero", "does not exist or is not a folder"),
        ("\\\\host\\share\\photos", "is a path on another computer or of a device"),
        ("\\\\.\\C:", "is a path on another computer or of a device"),
        ("~nobody-of-this-name/x", "does not exist or is not a folder"),
        ("x" * 5000, "does not exist or is not a folder"),
    ],
)
def test_folders_of_the_system_are_answered(named: str, said: str) -> None:
    """Folders of the system, a device, paths of Windows' network and of nobody's home, 5000 letters: one sentence, at once."""
    if named.startswith("/") and not Path(named).exists():
        pytest.skip("not on this system")
    found = find_images(build_config({"data": [named]}))
    assert found.samples == () and len(found.problems) == 1 and said in found.problems[0], found.problems
    assert found.problems[0].startswith("Image folder (data): ") and found.problems[0].endswith(".")


@pytest.mark.case(49)
@pytest.mark.parametrize(
    "option", ["data", "reg_data", "mask_data", "network_weights", "base_weights", "resume", "sample_prompts"]
)
def test_paths_of_another_machine(option: str, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""A path of Windows' network (\\host\share) in every option that takes one: one sentence, and nothing is looked for there."""
    named = "\\\\host\\share\\a.txt" if option == "sample_prompts" else "\\\\host\\share\\a"
    looked: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, *rest, **more: looked.append(str(path)) or real(path, *rest, **more))
    lists = {"data", "reg_data", "base_weights"}
    asked = {"masked_loss": option == "mask_data", "sample_every_n_steps": int(option == "sample_prompts")}
    told = house.run(quick(**{option: [named] if option in lists else named}, **asked)).told
    assert len(told) == 1 and "is a path on another computer or of a device; use one on this computer" in told[0], told
    assert f"({option})" in told[0] and not [path for path in looked if "host" in path]


@pytest.mark.case(49)
def test_a_loop_of_links(photos: Path) -> None:
    """A link to the folder it lies in, and one to itself: neither is gone round in."""
    (photos / "1_again").symlink_to(photos)
    (photos / "1_self").symlink_to(photos / "1_self")
    found = find_images(build_config({"data": [str(photos)]}))
    assert len(found.samples) == 4 and found.problems == ()


@pytest.mark.case(49)
@pytest.mark.parametrize("kind", ["image", "caption", "folder", "images of one folder", "mask", "mask folder"])
def test_links_out_of_a_folder_are_not_followed(
    kind: str, photos: Path, tmp_path: Path, house: House, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to a picture, a caption, a mask or a folder elsewhere: nothing behind it is opened, one sentence names it."""
    secret, masks, images = tmp_path / "secret", tmp_path / "masks", photos / "3_blob"
    write_picture(secret / "s.png", 96, 96)
    (secret / "s.txt").write_text("a secret")
    for path in images.glob("*.png"):
        write_picture(masks / path.name, 96, 96)
    if kind == "image":
        (images / "out.png").symlink_to(secret / "s.png")
    elif kind == "images of one folder":
        for name in "abcdefg":
            (images / f"{name}.png").symlink_to(Path("../../secret/s.png"))
    elif kind == "caption":
        (images / "0.txt").unlink()
        (images / "0.txt").symlink_to(secret / "s.txt")
    elif kind == "folder":
        (photos / "1_out").symlink_to(secret)
    elif kind == "mask":
        (masks / "0.png").unlink()
        (masks / "0.png").symlink_to(secret / "s.png")
    else:
        (masks / "3_blob").symlink_to(secret)
    opened: list[Path] = []
    monkeypatch.setattr(dataset, "_checked", {})
    monkeypatch.setattr(Reader, "picture", lambda _, path: opened.append(path.resolve()) or Picture(Size(96, 96), "0"))
    told = house.run(quick(masked_loss=kind.startswith("mask"), mask_data=str(masks))).told
    name, root = {
        "image": ("Image folder (data): 'out.png' is a link", "photos"),
        "images of one folder": ("Image folder (data): 'a.png', 'b.png', 'c.png', 'd.png', 'e.png' and 2 more are links", "photos"),
        "caption": ("Caption file '0.txt' is a link", "photos"),
        "folder": ("Image folder (data): '1_out' is a link", "photos"),
        "mask": ("Mask folder (mask_data): '0.png' is a link", "masks"),
        "mask folder": ("Mask folder (mask_data): '3_blob' is a link", "masks"),
    }[kind]  # fmt: skip
    assert len(told) == 1 and told[0].startswith(f"{name} out of '{root}' and will not be followed; copy "), told
    assert opened and not any(path.is_relative_to(secret) for path in opened)


@pytest.mark.case(49)
def test_links_that_stay_inside_are_followed(photos: Path, tmp_path: Path, house: House, quick: Any) -> None:
    """A folder that is itself a link, and links from place to place in it, are what they lead to."""
    (photos / "3_blob" / "9.png").symlink_to("0.png")
    (photos / "3_blob" / "9.txt").symlink_to(write_text(photos / "caption.txt", "shared"))
    (photos / "1_again").symlink_to("3_blob")
    (tmp_path / "link").symlink_to(photos)
    found = find_images(quick(data=[str(tmp_path / "link")]))
    assert found.problems == () and len(found.samples) == 10
    assert [sample.caption for sample in found.samples if sample.path.name == "9.png"] == ["ohwx, shared"] * 2


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.case(49)
def test_a_folder_of_endless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files, or more folders of files, than any set of images has: counting ends, one sentence."""
    monkeypatch.setattr(folders, "MAX_ENTRIES", 50)
    real, looked = folders._sort_in, []
    monkeypatch.setattr(folders, "_sort_in", lambda entry, *rest: looked.append(entry.name) or real(entry, *rest))
    for root, names in (("flat", [f"{n}.png" for n in range(60)]), ("deep", [f"1_{n % 9}/{n}.png" for n in range(60)])):
        for name in names:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).touch()
        looked.clear()
        assert find_images(build_config({"data": [str(tmp_path / root)]})).problems == (
            f"Image folder (data): '{root}' contains more than 50 files and folders; choose a folder that contains only the images.",
        )
        assert len(looked) == 51


@pytest.mark.case(52)
def test_archives_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No archive is ever opened: one among images, or in place of them, is no image, whatever it is named."""
    for name in ("ZipFile", "is_zipfile"):
        monkeypatch.setattr(zipfile, name, lambda *_: pytest.fail("an archive was opened"))
    monkeypatch.setattr(tarfile, "open", lambda *_: pytest.fail("an archive was opened"))
    folder = tmp_path / "1_x"
    write_picture(folder / "good.png")
    for name in ("bomb.zip", "bomb.png", "bomb.tar.gz"):
        (folder / name).write_bytes(b"PK\x03\x04" + bytes(200))
    found = find_images(build_config({"data": [str(folder)]}))
    assert [sample.path.name for sample in found.samples] == ["good.png"]
    assert len(found.problems) == 1 and "'bomb.png'" in found.problems[0]
