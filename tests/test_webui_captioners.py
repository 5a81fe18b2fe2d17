"""BLIP and DeepBooru: called as the webui's own code is, under its queue lock, with nobody's state touched and nothing fetched."""

from __future__ import annotations

import ast
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_lora.datasets.captioning import Captioning
from lib_lora.datasets.captioning_options import CaptioningOptions
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.hosts import webui_autocrop, webui_captioners
from lib_lora.hosts.webui_captioners import BLIP_FILE, DEEPBOORU_FILE, Blip, DeepBooru
from lib_lora.hosts.webui_image_tools import WebuiImageTools
from tests.conftest import write_picture
from tests.house import assert_one_sentence

WEBUI = os.environ.get("WEBUI_DIR")
IMAGE = Image.new("RGB", (20, 10), (255, 0, 0))


class QueueLock:
    """As `modules.fifo_lock.FIFOLock`, but that it counts."""

    def __init__(self) -> None:
        self._lock, self._inner_lock = threading.Lock(), threading.Lock()
        self._pending_threads: deque[threading.Event] = deque()
        self.taken = 0

    def acquire(self, blocking: bool = True) -> bool:
        with self._inner_lock:
            if self._lock.acquire(False):
                self.taken += 1
                return True
            if not blocking:
                return False
            woken = threading.Event()
            self._pending_threads.append(woken)
        woken.wait()
        self.taken += 1
        return self._lock.acquire()

    def release(self) -> None:
        with self._inner_lock:
            if self._pending_threads:
                self._pending_threads.popleft().set()
            self._lock.release()


class Network(torch.nn.Module):
    """Stands for either model; its weights say where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.tags = ["1girl", "hat_(red)", "rating:safe"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[..., 0].mean(), x[..., 1].mean(), x[..., 0].mean()])[None]


def load_models(model_path: str, model_url: str | None = None, command_path: str | None = None, ext_filter: Any = None,
                download_name: str | None = None, ext_blacklist: Any = None, hash_prefix: str | None = None) -> list[str]:  # fmt: skip
    assert model_url is None, "this would download"
    return [str(path) for path in Path(model_path).rglob("*") if path.suffix in ext_filter]


def resize_image(resize_mode: int, im: Image.Image, width: int, height: int, upscaler_name: str | None = None) -> Image.Image:
    assert (resize_mode, width, height, upscaler_name) == (2, 512, 512, "None") and im.mode == "RGB"
    return im.resize((width, height))


@contextmanager
def autocast(disable: bool = False) -> Iterator[None]:
    yield


def get_param(model: Any) -> Any:
    return next(model.parameters())


class Webui:
    """The parts of the webui that captioners use, as fakes with its signatures. `log`: the calls, with whether the lock is held."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock, self.log = folder, QueueLock(), []  # type: ignore[var-annotated]
        self.state = SimpleNamespace(interrupted="theirs", job="theirs")
        self.broken = ""

    def note(self, what: str) -> None:
        assert self.lock._lock.locked(), f"{what} without the lock"
        self.log.append(what)
        if what == self.broken:
            raise RuntimeError("CUDA out of memory")

    def modules(self) -> dict[str, dict[str, Any]]:
        interrogate, deepbooru = models(self)
        cpu = torch.device("cpu")
        return {
            "call_queue": {"queue_lock": self.lock},
            "deepbooru": {"model": deepbooru(), "DeepDanbooru": deepbooru},
            "devices": {"device": cpu, "device_interrogate": cpu, "dtype": torch.float32, "autocast": autocast,
                        "torch_gc": lambda: None},
            "images": {"resize_image": resize_image},
            "interrogate": {"InterrogateModels": interrogate},
            "lowvram": {"send_everything_to_cpu": lambda: self.note("send_everything_to_cpu")},
            "modelloader": {"load_models": load_models},
            "paths": {"models_path": str(self.folder)},
            "shared": {"interrogator": interrogate(), "cmd_opts": SimpleNamespace(no_half=True), "state": self.state},
            "torch_utils": {"get_param": get_param},
        }  # fmt: skip


def models(webui: Webui) -> tuple[type, type]:
    """The webui's classes of the two models."""

    class InterrogateModels:
        blip_model = None
        dtype = None
        running_on_cpu = True

        def load_blip_model(self) -> Network:
            webui.note("load_blip_model")
            return Network()

        def send_blip_to_ram(self) -> None:
            webui.note("send_blip_to_ram")

        def generate_caption(self, pil_image: Image.Image) -> str:
            webui.note("generate_caption")
            assert self.blip_model is not None and self.dtype == self.blip_model.weight.dtype
            return f"a picture of {pil_image.size[0]}"

        def load(self) -> None:
            raise AssertionError("this loads CLIP too")

        def interrogate(self, pil_image: Image.Image) -> str:
            raise AssertionError("this begins and ends the state")

    class DeepDanbooru:
        model: Network | None = None

        def start(self) -> None:
            webui.note("start")
            self.model = self.model or Network()

        def stop(self) -> None:
            webui.note("stop")

        def tag(self, pil_image: Image.Image) -> str:
            raise AssertionError("this sorts and escapes")

    return InterrogateModels, DeepDanbooru


@pytest.fixture
def webui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Webui:
    found = Webui(tmp_path / "models")
    package = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, members in found.modules().items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(members)
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    monkeypatch.delitem(sys.modules, "lib_lora.hosts.webui_queue", raising=False)
    monkeypatch.setattr(webui_captioners, "_has_vocabulary", lambda: True)
    for folder, file in (("BLIP", BLIP_FILE), ("torch_deepdanbooru", DEEPBOORU_FILE)):
        (found.folder / folder).mkdir(parents=True)
        (found.folder / folder / file).write_bytes(b"weights")
    yield found
    sys.modules.pop("lib_lora.hosts.webui_queue", None)  # it holds this lock
    assert vars(found.state) == {"interrupted": "theirs", "job": "theirs"}
    assert not found.lock._lock.locked(), "the lock is still held"


def caption(captioner: Any, count: int = 1) -> list[Any]:
    assert captioner.needs() == ""
    found = []
    with captioner:
        for _ in range(count):
            captioner.wait_for_turn()
            found.append(captioner.caption(IMAGE))
    return found


def test_blip_is_called_without_clip(webui: Webui) -> None:
    assert caption(Blip()) == ["a picture of 20"]
    assert webui.log == ["send_everything_to_cpu", "load_blip_model", "generate_caption", "send_blip_to_ram"]


def test_deepbooru_gives_all_tags_with_probabilities(webui: Webui) -> None:
    ((first, second),) = caption(DeepBooru())
    assert first[0] == "1girl" and second[0] == "hat_(red)"
    assert np.allclose([first[1], second[1]], [1.0, 0.0])
    assert webui.log == ["send_everything_to_cpu", "start", "stop"]


def test_the_lock_is_kept_until_somebody_waits(webui: Webui) -> None:
    captioner = DeepBooru()
    with captioner:
        for _ in range(4):
            captioner.wait_for_turn()
            captioner.caption(IMAGE)
        taken = webui.lock.taken
        captioner.wait_for_turn()
        assert webui.lock.taken == taken  # nobody waited
        order: list[str] = []

        def other() -> None:
            webui.lock.acquire()
            order.append("other")
            webui.lock.release()

        thread = threading.Thread(target=other)
        thread.start()
        while not webui.lock._pending_threads:
            pass
        assert order == []
        captioner.wait_for_turn()
        order.append("ours")
        thread.join(10)
        assert order == ["other", "ours"] and webui.log[-1] == "stop"  # its memory is free for the other
        captioner.caption(IMAGE)
    assert webui.log[-2:] == ["start", "stop"]


def test_a_turn_that_comes_after_the_end_is_given_back(webui: Webui) -> None:
    captioner = Blip()
    webui.lock.acquire()
    thread = threading.Thread(target=captioner.wait_for_turn)
    with captioner:
        thread.start()
        while not webui.lock._pending_threads:
            pass
    webui.lock.release()
    thread.join(10)
    assert not thread.is_alive() and webui.log == []


@pytest.mark.parametrize("broken", ["start", "stop", "send_everything_to_cpu"])
def test_the_lock_is_given_back_after_an_error(webui: Webui, broken: str) -> None:
    webui.broken = broken
    with pytest.raises(RuntimeError):
        caption(DeepBooru())


def test_an_image_that_hangs_does_not_keep_the_lock(webui: Webui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webui_captioners, "END_S", 0.1)
    goes_on = threading.Event()
    monkeypatch.setattr(DeepBooru, "_caption", lambda self, image: goes_on.wait(20))
    captioner = DeepBooru()
    captioner.wait_for_turn()
    thread = threading.Thread(target=captioner.caption, args=(IMAGE,))
    thread.start()
    captioner.__exit__(None, None, None)
    assert not webui.lock._lock.locked() and thread.is_alive()
    goes_on.set()
    thread.join(10)


@pytest.mark.parametrize(("captioner", "file", "place"), [
    (Blip(), BLIP_FILE, "BLIP"), (DeepBooru(), DEEPBOORU_FILE, "torch_deepdanbooru"),
])  # fmt: skip
def test_missing_weights_are_told_and_not_fetched(webui: Webui, captioner: Any, file: str, place: str) -> None:
    (webui.folder / place / file).unlink()
    told = captioner.needs()
    assert file in told and str(webui.folder / place) in told
    assert_one_sentence(told)


def test_a_missing_vocabulary_is_told_and_not_fetched(webui: Webui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webui_captioners, "_has_vocabulary", lambda: False)
    assert "bert-base-uncased" in Blip().needs()
    assert_one_sentence(Blip().needs())


def test_the_vocabulary_is_looked_for_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import utils

    monkeypatch.setattr(utils, "TRANSFORMERS_CACHE", str(tmp_path), raising=False)
    assert not webui_captioners._has_vocabulary()
    folder = tmp_path / "models--bert-base-uncased"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc" / "vocab.txt").write_text("[PAD]")
    assert webui_captioners._has_vocabulary()


def test_a_run_with_deepbooru(webui: Webui, tmp_path: Path) -> None:
    dataset = Catalogue(tmp_path / "sets").create("cats")
    for number in range(3):
        dataset.add(f"{number}.png", write_picture(tmp_path / "in.png", seed=number))
    job = Captioning(dataset, DeepBooru(), dataset.entries()[0], CaptioningOptions(threshold=0.0))
    job.start()
    assert job.join(60) and job.progress.written == 3 and job.progress.ended == ""
    assert {tag for entry in dataset.entries()[0] for tag in (entry.caption or "").split(", ")} == {"1girl", "hat (red)"}
    assert webui.log[-1] == "stop"


def test_the_webui_offers_its_own_captioners_first(webui: Webui) -> None:
    """DeepBooru with the webui's own threshold; a flag that hides folders leaves no path to name; what is missing is told."""
    offers = WebuiImageTools(may_choose=True).captioners()
    assert [offer.id for offer in offers] == ["blip", "deepbooru", "wd14", "openai"] and offers[0].needs() == ""
    thresholds = [field.default for field in offers[1].fields if field.name == "threshold"]
    assert thresholds == [0.5] and "threshold" not in {field.name for field in offers[0].fields}
    assert isinstance(offers[1].make({}), DeepBooru) and isinstance(offers[0].make({}), Blip)
    models = [field.default for field in offers[2].fields if field.name == "model"]
    assert models == [str(webui.folder / "WD14")]
    hidden = WebuiImageTools(may_choose=False).captioners()
    assert "model" not in {field.name for field in hidden[2].fields}
    (webui.folder / "BLIP" / BLIP_FILE).unlink()
    assert BLIP_FILE in offers[0].needs()


def test_a_webui_without_the_loader_hides_no_other_captioner(webui: Webui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modules.modelloader", None)
    monkeypatch.delattr(sys.modules["modules"], "modelloader")
    told = [offer.needs() for offer in WebuiImageTools(may_choose=True).captioners()]
    assert "BLIP cannot be used" in told[0] and told[3] == ""
    for text in told[:3]:
        assert_one_sentence(text)


def test_crops_are_searched_by_the_webui(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webui_autocrop, "face", lambda: "face")
    monkeypatch.setattr(webui_autocrop, "focal", lambda: "focal")
    tools = WebuiImageTools(may_choose=True)
    assert (tools.autocrop("face"), tools.autocrop("focal")) == ("face", "focal")


USED = {
    "interrogate": ["InterrogateModels.load_blip_model", "InterrogateModels.send_blip_to_ram", "InterrogateModels.generate_caption",
                    "InterrogateModels.interrogate", "InterrogateModels.load"],
    "deepbooru": ["DeepDanbooru.start", "DeepDanbooru.stop", "DeepDanbooru.tag"],
    "modelloader": ["load_models"],
    "images": ["resize_image"],
    "devices": ["autocast", "torch_gc"],
    "lowvram": ["send_everything_to_cpu"],
    "torch_utils": ["get_param"],
}  # fmt: skip


@pytest.mark.skipif(not WEBUI, reason="WEBUI_DIR is not set; it names a webui whose signatures are compared.")
@pytest.mark.parametrize(("room", "names"), USED.items())
def test_the_fakes_have_the_signatures_of_the_webui(tmp_path: Path, room: str, names: list[str]) -> None:
    real = ast.parse((Path(str(WEBUI)) / "modules" / f"{room}.py").read_text(encoding="utf-8"))
    ours = Webui(tmp_path).modules()[room]
    for name in names:
        cls, _, method = name.rpartition(".")
        body: Any = real.body
        if cls:
            body = next(node.body for node in real.body if isinstance(node, ast.ClassDef) and node.name == cls)
        function = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == method)
        fake = getattr(ours[cls], method) if cls else ours[method]
        fake = getattr(fake, "__wrapped__", fake)
        count = fake.__code__.co_argcount
        assert [argument.arg for argument in function.args.args] == list(fake.__code__.co_varnames[:count]), name
        assert len(function.args.defaults) == len(fake.__defaults__ or ()), name


@pytest.mark.skipif(not WEBUI, reason="WEBUI_DIR is not set; it names a webui whose files are compared.")
def test_the_files_are_those_that_the_webui_would_fetch() -> None:
    for room, file, folder in (("interrogate", BLIP_FILE, "BLIP"), ("deepbooru", DEEPBOORU_FILE, "torch_deepdanbooru")):
        text = (Path(str(WEBUI)) / "modules" / f"{room}.py").read_text(encoding="utf-8")
        assert f"download_name='{file}'" in text and f'paths.models_path, "{folder}"' in text
    loader = (Path(str(WEBUI)) / "repositories" / "BLIP" / "models" / "blip.py").read_text(encoding="utf-8")
    assert f"from_pretrained('{webui_captioners.VOCABULARY}')" in loader
