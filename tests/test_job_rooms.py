"""The modules around jobs, their list and their page, each by itself; modules of the webui on doubles of its names."""

from __future__ import annotations

import errno
import gc
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lib_lora.errors import DatasetError, LoraFileError, ModelError, NotGivenBack
from lib_lora.events import Finished, Lent, Saved, SavedBetween, StepDone
from lib_lora.hosts import webui_networks
from lib_lora.hosts.ldm_config import ldm_config
from lib_lora.hosts.restoring import given_back
from lib_lora.jobs.owners import Owners
from lib_lora.jobs.progress import Progress
from lib_lora.jobs.queue_entry import Entry, strict
from lib_lora.jobs.queue_store import QueueError, Store
from lib_lora.jobs.shared_list import SharedList
from lib_lora.run_control import RunControl
from lib_lora.signals import leaving
from lib_lora.training.memory import give_memory_back, memory_gb
from lib_lora.ui.answering import disk_sentence, problems_of
from tests.pins.webui_double import install

CPU = torch.device("cpu")
ROOT = Path(__file__).parent.parent


def test_a_page_is_sent_what_json_has_words_for() -> None:
    value = {"loss": math.nan, "rates": (1.0, math.inf), "name": "a\udce9", "n": 3}
    assert strict(value) == {"loss": None, "rates": [1.0, None], "name": "a?", "n": 3}
    json.dumps(strict(value), allow_nan=False).encode()


def test_progress_is_a_new_value_after_each_event() -> None:
    before = Progress(started=1.0)
    lent = before.after(Lent("lent"), 2.0)
    assert (before.state, lent.state, lent.phase) == ("running", "lent", "lent")
    step = lent.after(StepDone(5, 9, 2, 0.1, ()), 3.0)
    assert (step.state, step.step, step.epoch, step.first_step) == ("running", 5, 2, 4), "resumed from step 4"
    assert step.after(StepDone(6, 9, 2, 0.1, ()), 3.0).first_step == 4
    between = step.after(SavedBetween(Path("a-5.safetensors"), 5), 4.0).after(
        SavedBetween(Path("a-6.safetensors"), 6, "a-5"), 5.0
    )
    assert between.between == ("a-6",)
    nothing = between.after(Finished(None, 6), 6.0)
    assert (nothing.state, nothing.phase, nothing.ended) == ("stopped", "saved before the end: a-6", 6.0)
    done = between.after(Saved(Path("a.safetensors"), 6), 6.0).after(Finished(Path("a.safetensors"), 6), 7.0)
    assert (done.state, done.phase, done.saved) == ("done", "saved as a.safetensors", "a")
    failed = between.failed(("No.",), 8.0)
    assert (failed.state, failed.problems, failed.phase) == ("failed", ("No.",), "saved before the end: a-6")


def test_cycles_are_given_back_and_memory_is_counted() -> None:
    class Node:
        pass

    node = Node()
    node.own = node  # type: ignore[attr-defined]
    gone = weakref.ref(node)
    gc.disable()
    try:
        del node
        assert gone() is not None
        give_memory_back(CPU)
        assert gone() is None
    finally:
        gc.enable()
    held = memory_gb(CPU)
    assert held is None or 0.01 < held < 1000


@contextmanager
def another_program(folder: Path, entry_id: str) -> Iterator[None]:
    """While it lasts, another program has a job of the folder."""
    claims = (
        "import sys; from pathlib import Path; from lib_lora.jobs.owners import Owners; "
        "print(Owners(Path(sys.argv[1])).claim(sys.argv[2]), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", claims, str(folder), entry_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == "True"
        yield
        process.communicate()


def test_a_job_has_one_owner(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    ours = Owners(tmp_path)
    with another_program(tmp_path, "a"):
        assert not ours.claim("a") and not ours.owns("a") and ours.elsewhere("a")
    assert not ours.elsewhere("a") and ours.claim("a") and ours.owns("a")
    ours.release("a")
    assert not ours.owns("a")
    with ours.alone():
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists() and ours.trouble == ""


def test_what_another_program_did_is_seen(tmp_path: Path) -> None:
    others = Store(tmp_path / "queue")
    ours = SharedList(Store(tmp_path / "queue"))
    assert ours.entries == () and ours.told == ""
    first = ours.revision
    others.add(Entry("b", {"name": "b"}, queued=2.0))
    others.add(Entry("a", {"name": "a"}, queued=1.0, state="finished", ended=3.0))
    with another_program(tmp_path / "queue", "b"):
        ours.look()
        assert {entry.id: entry.state for entry in ours.entries} == {"b": "waiting", "a": "finished"}
        assert [entry.id for entry in ours.entries] == ["b", "a"], "what waits stands before what is over"
        assert ours.revision != first and ours.elsewhere("b") and not ours.elsewhere("a")
        second = ours.revision
        ours.look()
        assert ours.revision == second, "nothing was done"
    ours.look()
    assert ours.revision != second and not ours.elsewhere("b"), "the other program is no more"
    with pytest.raises(QueueError, match="not exist any more"):
        ours.entry("c")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DatasetError(["One.", "Two."]), ["One.", "Two."]),
        (OSError(errno.ENOSPC, "full", "/secret/a.png"), "No space left on device 'a.png'; free space on that disk."),
        (PermissionError(errno.EACCES, "no", b"/secret/b"), "'b'; check its permissions."),
        (RuntimeError("a\n  b" * 200), "This failed (RuntimeError: a ba ba b"),
    ],
)
def test_any_error_is_answered_in_sentences(error: Exception, said: str | list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = problems_of(error)
    assert found == said if isinstance(said, list) else said in found[0] and len(found) == 1
    assert "secret" not in found[0] and "\n" not in found[0] and len(found[0]) < 500
    assert ("Traceback" in capsys.readouterr().err or "RuntimeError" in found[0]) == isinstance(error, RuntimeError)
    assert disk_sentence(OSError("odd")).endswith("disk error: odd; try again.")


def test_the_rest_is_given_back_whatever_fails() -> None:
    done: list[str] = []

    def fails() -> None:
        raise RuntimeError("stuck")

    with pytest.raises(NotGivenBack) as caught, given_back() as stack:
        stack.callback(done.append, "first")
        stack.callback(fails)
        stack.callback(done.append, "last")
        raise ModelError("no model")
    assert done == ["last", "first"]
    assert caught.value.problems[0] == "no model" and "RuntimeError: stuck" in caught.value.problems[1]
    with given_back() as stack:
        stack.callback(done.append, "again")
    assert done[-1] == "again"


def test_ldm_is_told_the_shapes_of_the_checkpoint(mini_checkpoint: Path, mini_inpainting: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for checkpoint, channels in ((mini_checkpoint, 4), (mini_inpainting, 9)):
        weights = load_file(checkpoint)
        model = ldm_config(weights, tmp_path)["model"]
        unet = model["params"]["unet_config"]["params"]
        first = weights["model.diffusion_model.input_blocks.0.0.weight"]
        assert (unet["model_channels"], unet["in_channels"]) == tuple(first.shape[:2]) and first.shape[1] == channels
        assert model["target"].endswith("LatentInpaintDiffusion" if channels == 9 else "LatentDiffusion")
        assert unet["channel_mult"] == [1, 2, 4, 4] and unet["context_dim"] == 64


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs such signals")
def test_the_first_signal_leaves_and_the_next_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    number, others, said, control = signal.SIGUSR1, [], [], RunControl()
    monkeypatch.setattr("lib_lora.signals.SIGNALS", (number, signal.SIGUSR2))
    before = signal.signal(number, lambda *_: others.append(1)), signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with leaving(control, said.append) as came:
            assert not control.stop_requested and signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
            os.kill(os.getpid(), number)
            assert came == [number] and control.stop_requested and control.leaves and len(said) == 1 and others == []
            os.kill(os.getpid(), number)
            assert others == [1]
    finally:
        signal.signal(number, before[0])
        signal.signal(signal.SIGUSR2, before[1])


def lora_extension(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A double of the webui's `networks` module that reads one layer."""
    networks = ModuleType("networks")
    found = SimpleNamespace(modules={"a": SimpleNamespace(network_key="lora_unet_a.lora_up.weight")}, bundle_embeddings={})
    vars(networks).update(
        load_networks=lambda names: None,
        network_apply_weights=lambda layer: setattr(layer, "network_current_names", ()),
        network=SimpleNamespace(NetworkOnDisk=lambda name, path: path),
        load_network=lambda name, on_disk: found,
        networks_in_memory={"blob": 1, "other": 2},
        listed=[],
    )
    networks.list_available_networks = lambda: networks.listed.append(1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "networks", networks)
    return networks


def test_the_webuis_lora_extension_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, layer = lora_extension(monkeypatch), nn.Linear(2, 2)
    layer.network_layer_name, layer.network_current_names = "a", (("old", 1.0),)  # type: ignore[assignment]
    webui_networks.take_off([layer])
    assert layer.network_current_names == ()
    networks.network_apply_weights = lambda layer: None  # type: ignore[attr-defined]
    layer.network_current_names = (("old", 1.0),)  # type: ignore[assignment]
    with pytest.raises(ModelError, match="cannot be removed"):
        webui_networks.take_off([layer])
    path = tmp_path / "blob.safetensors"
    save_file({"lora_unet_a.alpha": torch.ones(1)}, path)
    webui_networks.check(path)
    webui_networks.announce(path)
    assert networks.networks_in_memory == {"other": 2} and networks.listed == [1]
    save_file({"lora_unet_a.alpha": torch.ones(1), "lora_unet_b.alpha": torch.ones(1)}, path)
    with pytest.raises(LoraFileError, match="no layer for 1 keys, such as 'lora_unet_b'"):
        webui_networks.check(path)


def test_the_lock_is_taken_behind_whoever_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = install(monkeypatch, SimpleNamespace(), tmp_path).call_queue.queue_lock
    place, order = importlib.import_module("lib_lora.hosts.webui_queue").Place(), []

    def generate() -> None:
        with lock:
            order.append("other")

    with ExitStack() as stack:
        place.take(stack)
        thread = threading.Thread(target=generate)
        thread.start()
        while not lock._pending_threads:
            pass
        assert lock.locked() and place.wanted and order == []
    with ExitStack() as stack:
        place.take_again(stack)
        order.append("ours")
        assert lock.locked()
    thread.join(5)
    assert order == ["other", "ours"] and not lock.locked()


def test_the_tab_of_a_webui_that_lacks_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    webui, shown = install(monkeypatch, SimpleNamespace(), tmp_path), []
    monkeypatch.setattr(webui.script_callbacks, "on_ui_tabs", shown.append)
    importlib.import_module("lib_lora.hosts.webui_missing").tell(ImportError("no <module> named a"))
    ((blocks, title, _),) = shown[0]()
    for built in (blocks, importlib.import_module("lib_lora.ui.tab_missing").build("ImportError: no <module> named a")):
        parts = [part["props"] for part in built.get_config_file()["components"]]
        (html,) = [part["value"] for part in parts if part.get("elem_id") == "train_lora_missing"]
        assert "ImportError: no &lt;module&gt; named a" in html and "works without it" in html
    assert title == "Train LoRA"
