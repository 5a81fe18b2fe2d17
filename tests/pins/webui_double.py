"""A double of the webui's names that `lib_lora.hosts.webui_*` uses, around a real ldm model.

`tests/e2e/webui_names.json` lists these names with their parameters; the e2e tests check the list against a real webui.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file


def load_ldm(checkpoint: Path) -> Any:
    """The checkpoint as ldm's own `LatentDiffusion`, built from the sidecar yaml."""
    from ldm.util import instantiate_from_config
    from transformers import CLIPTextConfig, CLIPTextModel

    config = yaml.safe_load(checkpoint.with_suffix(".yaml").read_text())["model"]
    clip = config["params"]["cond_stage_config"]["params"]["version"]
    if clip is not None:  # open_clip's needs none
        CLIPTextModel(CLIPTextConfig.from_pretrained(clip)).save_pretrained(clip)
    model = instantiate_from_config(config)
    missing, _ = model.load_state_dict(load_file(checkpoint), strict=False)
    assert all(not name.startswith(("model.diffusion_model", "first_stage_model", "cond_stage_model")) for name in missing)
    return model.eval()


def as_webui_holds_it(model: Any, checkpoint: Path) -> Any:
    """The attributes that the webui sets on a loaded SD 1.x."""
    model.is_sd1, model.is_sd2, model.is_sdxl, model.is_sd3, model.is_ssd = True, False, False, False, False
    model.lowvram = False
    model.alphas_cumprod_original = model.alphas_cumprod
    model.sd_checkpoint_info = SimpleNamespace(filename=str(checkpoint), name=checkpoint.name, hash="abcd1234", sha256=None)
    return model


class Queue:
    """First come, first served, as the webui's `FIFOLock`: who waited longest is woken, and then anyone can take it."""

    def __init__(self) -> None:
        self._lock, self._guard = threading.Lock(), threading.Lock()
        self._pending_threads: deque[threading.Event] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        with self._guard:
            if self._lock.acquire(False):
                return True
            woken = threading.Event()
            if blocking:
                self._pending_threads.append(woken)
        if blocking:
            woken.wait()
            self.before_taking()
            self._lock.acquire()
        return blocking

    def release(self) -> None:
        with self._guard:
            if self._pending_threads:
                self._pending_threads.popleft().set()
            self._lock.release()

    def before_taking(self) -> None:
        """Where a woken thread may be overtaken; for tests."""

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def install(monkeypatch: pytest.MonkeyPatch, model: Any, folder: Path, **flags: Any) -> SimpleNamespace:
    """Put the double into `sys.modules`; returns its modules by name. `flags`: of the command line, `cmd_opts`."""
    lock = Queue()
    state = SimpleNamespace(begun=0, ended=0)

    def begin(job: str = "(unknown)") -> None:
        assert lock.locked()
        state.begun += 1

    def end() -> None:
        state.ended += 1

    state.begin, state.end = begin, end
    model_data = SimpleNamespace(sd_model=model)
    database = SimpleNamespace(ids_lookup={}, load_textual_inversion_embeddings=lambda force_reload=False: None)
    selected = SimpleNamespace(info=getattr(model, "sd_checkpoint_info", None))
    processing = SimpleNamespace(
        StableDiffusionProcessing=SimpleNamespace(cached_c=[1, 2], cached_uc=[1, 2]),
        StableDiffusionProcessingTxt2Img=SimpleNamespace(cached_hr_c=[1, 2], cached_hr_uc=[1, 2]),
    )
    parts = {
        "call_queue": {"queue_lock": lock},
        "devices": {"device": torch.device("cpu"), "unet_needs_upcast": False},
        "localization": {"localizations": {}},
        "paths": {"models_path": str(folder), "data_path": str(folder)},
        "processing": vars(processing),
        "restart": {"stop_program": lambda: None},
        "script_callbacks": {
            name: lambda *_, **__: None for name in ("on_before_ui", "on_ui_tabs", "on_app_started", "on_before_reload")
        },
        "sd_hijack": {"model_hijack": SimpleNamespace(apply_circular=lambda enable: None, fixes=["x"], embedding_db=database)},
        "sd_models": {
            "checkpoints_list": {"mini": 1}, "model_data": model_data,
            "reload_model_weights": lambda sd_model=None, info=None, forced_reload=False: model_data.sd_model,
            "send_model_to_device": lambda m: m.to("cpu"),
            "select_checkpoint": lambda: selected.info, "SkipWritingToConfig": nullcontext, "selected": selected,
        },
        "sd_unet": {"apply_unet": lambda option=None: None, "get_unet_option": lambda option=None: None},
        "shared": {
            "cmd_opts": SimpleNamespace(lora_dir=str(folder / "Lora"), lowvram=False, medvram=False, **flags),
            "opts": SimpleNamespace(localization="None"), "state": state, "sd_model": model, "loaded_hypernetworks": ["hyper"],
        },
    }  # fmt: skip
    package = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, members in parts.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(members)
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    forget_rooms(monkeypatch)
    return SimpleNamespace(**{name: sys.modules[f"modules.{name}"] for name in parts})


def forget_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rooms that import the webui's names are imported anew by whoever asks for them next."""
    for name in (
        "webui_host",
        "webui_hooks",
        "webui_detection",
        "webui_languages",
        "webui_missing",
        "webui_model",
        "webui_queue",
        "webui_restart",
    ):
        monkeypatch.delitem(sys.modules, f"lib_lora.hosts.{name}", raising=False)
