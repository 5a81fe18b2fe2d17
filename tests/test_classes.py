"""Dotted names of classes: checked before their module is imported, and refused in files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from lib_lora.config import classes
from lib_lora.config.classes import class_problem
from lib_lora.config.groups import build_config
from lib_lora.config.rules import config_problems
from lib_lora.config.settled import SettledOptimizer
from lib_lora.errors import ConfigError
from lib_lora.kohya.importing import import_file
from lib_lora.training.optimizer import settings_problem
from tests.test_cli import parsed

RUN = "import sys\nsys.train_lora_ran = True\n"
PACKAGE = {
    "adopt/__init__.py": RUN + "from .inner import *\nfrom . import later as L\nimport adopt.inner as inner\n"
    "Same = Adopt\nclass ByModule(L.Base): ...\nclass Far(inner.Adopt): ...\n",
    "adopt/inner.py": RUN + "from typing import TYPE_CHECKING\ntry:\n    from torch.optim import Optimizer\nexcept ImportError:\n    pass\n"
    "import torch\nclass Adopt(torch.optim.Optimizer): ...\nclass Plain: ...\n"
    "class Waits(torch.optim.lr_scheduler.LRScheduler): ...\nclass Fine(torch.optim.AdamW): ...\n",
    "adopt/later.py": RUN + "from torch.optim.optimizer import Optimizer as Root\nclass Base(Root): ...\n",
    "adopt/__main__.py": RUN + "raise SystemExit(3)\nfrom torch.optim import Adam as X\n",
    "adopt/ends.py": "import torch\nclass Ends(torch.optim.SGD):\n    def __init__(self, *a, **k):\n        raise SystemExit(3)\n",
    "adopt/ends_at_once.py": "import torch\nclass Ends(torch.optim.SGD): ...\nraise SystemExit(3)\n",
    "adopt/made.py": RUN + "from .inner import Adopt\nAdoptNow = make(Adopt)\n",
    "adopt/circle.py": "class Round(Other): ...\nclass Other(Round): ...\n",
    "adopt/generic.py": "from torch.optim import Optimizer\nclass Generic(Optimizer[int]): ...\n",
    "adopt/broken.py": "class X(:\n",
}  # fmt: skip


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages: adopt is installed, stray is not."""
    folder = tmp_path / "site"
    written = {**PACKAGE, "stray/__init__.py": PACKAGE["adopt/inner.py"], "alone.py": PACKAGE["adopt/inner.py"]}
    for name, text in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    info = folder / "adopt-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: adopt\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in PACKAGE))
    monkeypatch.syspath_prepend(str(folder))
    classes.is_installed.cache_clear()
    for name in ("adopt", "adopt.inner", "adopt.later", "adopt.ends", "adopt.ends_at_once"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(sys, "train_lora_ran", raising=False)
    return folder


@pytest.mark.parametrize(
    "name",
    ["adopt.inner.Adopt", "adopt.Adopt", "adopt.Same", "adopt.ByModule", "adopt.Far", "adopt.generic.Generic", "adopt.inner.Fine",
     "adopt.later.Base", "torch.optim.AdamW", "torch.optim.adamw.AdamW", "torch.optim.RAdam", "transformers.optimization.Adafactor"],
)  # fmt: skip
def test_an_optimizer_is_known_from_its_source(name: str) -> None:
    assert class_problem(name, "optimizer") is None
    assert "is not a torch schedule" in str(class_problem(name, "schedule"))
    assert not hasattr(sys, "train_lora_ran") and "adopt" not in sys.modules


@pytest.mark.parametrize("name", ["torch.optim.lr_scheduler.StepLR", "adopt.inner.Waits", "torch.optim.swa_utils.SWALR"])
def test_a_schedule_is_known_from_its_source(name: str) -> None:
    assert class_problem(name, "schedule") is None and class_problem(name, "optimizer") is not None
    assert not hasattr(sys, "train_lora_ran")


@pytest.mark.parametrize(
    ("name", "why"),
    [("lib2to3.__main__.X", "is not a torch optimizer"), ("pip.__main__.X", "is not a torch optimizer"), ("adopt.__main__.X", "programs are not"),
     ("antigravity.X", "part of Python"), ("os.system", "part of Python"), ("this.X", "part of Python"),
     ("stray.Adopt", "outside of installed packages"), ("alone.Adopt", "outside of installed packages"), ("lib_lora.cli.main", "outside of installed packages"),
     ("no_such_package.X", "not installed"), ("adopt.Nonsense", ""), ("adopt.inner.Plain", "is not a torch optimizer"),
     ("adopt.made.AdoptNow", ""), ("adopt.inner.NoSuch", "cannot be found"), ("adopt.broken.X", "cannot be found"),
     ("adopt.no_room.X", "cannot be found"), ("adopt.circle.Round", "is not a torch optimizer"), ("adopt.ends", ""), ("pip._internal.main", ""),
     ("", "not a name"), ("..", "not a name"), (".x.Y", "not a name"), ("a b.C", "not a name"), ("a;b.C", "not a name"), ("../x.Y", "not a name"),
     ("X", "programs are not"), ("x." * 400 + "Y", "not a name"), ("torch.optim.Nonsense", "cannot be found"), ("torch.nn.Linear", "is not a torch optimizer")],
)  # fmt: skip
def test_what_is_no_optimizer_is_told_and_nothing_is_run(name: str, why: str) -> None:
    loaded = set(sys.modules)
    problem = class_problem(name, "optimizer")
    assert problem is not None and why in problem
    assert not hasattr(sys, "train_lora_ran") and not {part for part in set(sys.modules) - loaded if part in name}
    if name and len(name) < 100:
        told = config_problems(build_config({"name": "x", "data": ["d"], "trigger": "z", "optimizer": name}))
        assert [sentence for sentence in told if sentence.startswith("Optimizer (optimizer)")]
        assert settings_problem(SettledOptimizer(optimizer=name, text_encoder_lr=0.0), torch.device("cpu")) is not None
        assert not hasattr(sys, "train_lora_ran")


def test_a_package_in_the_folder_where_the_webui_was_started_is_not_imported(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    assert "outside of installed packages" in str(class_problem("adopt.inner.Adopt", "optimizer"))


@pytest.mark.parametrize("name", ["adopt.ends.Ends", "adopt.ends_at_once.Ends"])
def test_a_class_that_ends_the_program_is_a_sentence(name: str) -> None:
    problem = settings_problem(SettledOptimizer(optimizer=name, text_encoder_lr=0.0), torch.device("cpu"))
    assert problem is not None and "SystemExit" in problem and problem.endswith(".")


FOREIGN = [("optimizer", "adopt.inner.Adopt"), ("optimizer", "lib2to3.__main__.X"), ("lr_scheduler_type", "adopt.inner.Waits"),
           ("optimizer", "os.system")]  # fmt: skip
TRUSTED = [("optimizer", "RAdam"), ("optimizer", "torch.optim.Adagrad"), ("optimizer", "prodigyopt.Prodigy"),
           ("optimizer", "bitsandbytes.optim.AdamW8bit"), ("lr_scheduler_type", "StepLR"),
           ("lr_scheduler_type", "torch.optim.lr_scheduler.StepLR")]  # fmt: skip


def files(folder: Path, option: str, value: str) -> list[Path]:
    """The same setting as a file of each kind has it."""
    kohya = {"optimizer": "optimizer_type"}.get(option, option)
    contents = {
        "ours.json": json.dumps({"rank": 4, option: value, "repeats": 2}),
        "gui.json": json.dumps({"LoRA_type": "Standard", option: value, "network_dim": 4}),
        "run.toml": f'network_dim = 4\n{kohya} = "{value}"\n',
        "sections.toml": f'[net]\nnetwork_dim = 4\n[opt]\n{kohya} = "{value}"\n',
        "more.json": json.dumps({"LoRA_type": "Standard", "additional_parameters": f"--{kohya}={value}"}),
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
    return [folder / name for name in contents]


@pytest.mark.parametrize(("option", "value"), FOREIGN)
def test_a_file_brings_in_no_code(option: str, value: str, tmp_path: Path) -> None:
    for path in files(tmp_path, option, value):
        found = import_file(path)
        assert option not in found.flat, path.name
        assert [said for said in found.not_supported if "enter the name yourself" in said.why], path.name
        with pytest.raises(ConfigError, match="use --"):
            parsed("--config", str(path))
        assert parsed("--config", str(path), f"--{option}", value).to_flat()[option] == value, "the person said so"
    assert not hasattr(sys, "train_lora_ran")


@pytest.mark.parametrize(("option", "value"), TRUSTED)
def test_what_is_torchs_or_of_the_list_is_taken_over(option: str, value: str, tmp_path: Path) -> None:
    for path in files(tmp_path, option, value):
        assert import_file(path).flat.get(option) == value, path.name
        assert parsed("--config", str(path)).to_flat()[option] == value
