"""Tiny files for the webui's own captioners: their real layers, whose weights repeat one number each and so take no room."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.server import Webui

TAGS = ["1girl", "hat_(red)", "rating:safe", "never_seen"]
CERTAIN = ["1girl", "hat (red)"]  # what the stand-in finds in each image, as it is written
# runs in the webui's Python: every weight 0, but for the last layers, which give the first three tags to any image
_DEEPBOORU = """
import importlib.util, sys, types, torch
source, target, tags = sys.argv[1], sys.argv[2], sys.argv[3:]
package, devices = types.ModuleType("modules"), types.ModuleType("modules.devices")
package.devices = devices
sys.modules |= {"modules": package, "modules.devices": devices}
spec = importlib.util.spec_from_file_location("deepbooru_model", source)
room = importlib.util.module_from_spec(spec)
spec.loader.exec_module(room)
with torch.device("meta"):
    shapes = {name: value.shape for name, value in room.DeepDanbooruModel().state_dict().items()}
state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
state["n_Conv_177.bias"] = torch.ones(1).expand(shapes["n_Conv_177.bias"])
last = shapes["n_Conv_178.weight"]
rows = torch.full((last[0], 1, 1, 1), -0.001)
rows[:3] = 0.001
state["n_Conv_178.weight"] = rows.expand(last)
torch.save({**state, "tags": [*tags, *map(str, range(len(tags), last[0]))]}, target)
"""


def write_deepbooru(webui: Webui, models: Path) -> Path:
    """A model of DeepBooru's layers that finds TAGS[:3] in every image."""
    target = models / "torch_deepdanbooru" / "model-resnet_custom_v3.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    source = webui.folder / "modules" / "deepbooru_model.py"
    command = [webui.python, "-c", _DEEPBOORU, source, target, *TAGS]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    assert target.stat().st_size < 2**20, "it is tiny"
    return target


def has_module(webui: Webui, name: str) -> bool:
    """Whether the webui's Python has a package."""
    return subprocess.run([webui.python, "-c", f"import {name}"], capture_output=True, timeout=120, check=False).returncode == 0
