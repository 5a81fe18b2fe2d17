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

_BLIP = """
import sys, types, torch
repository, target, word = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, repository)
fake = types.ModuleType("fairscale.nn.checkpoint.checkpoint_activations")
fake.checkpoint_wrapper = None
sys.modules |= {name: fake for name in ("fairscale", "fairscale.nn", "fairscale.nn.checkpoint", fake.__name__)}
from models.blip import blip_decoder
model = blip_decoder(image_size=384, vit="base", med_config=repository + "/configs/med_config.json")
state = {name: torch.zeros(1, dtype=value.dtype).expand(value.shape) for name, value in model.state_dict().items()}
for name in ("text_decoder.cls.predictions.bias", "text_decoder.cls.predictions.decoder.bias"):
    state[name] = torch.nn.functional.one_hot(torch.tensor(word), state[name].numel()).float()
torch.save({"model": state}, target)
"""
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "cat"]
_VOCABULARY = 30522  # words of bert-base-uncased


def write_blip(webui: Webui, models: Path, hf_home: Path) -> Path:
    """A model of BLIP's layers that says "cat" to every image, and a vocabulary in the cache of Hugging Face."""
    cache = hf_home / "hub" / "models--bert-base-uncased"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs" / "main").write_text("0" * 40)
    words = [*_WORDS, *(f"word{number}" for number in range(len(_WORDS), _VOCABULARY))]
    (snapshot / "vocab.txt").write_text("\n".join(words) + "\n")
    target = models / "BLIP" / "model_base_caption_capfilt_large.pth"
    target.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(hf_home),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    source = webui.folder / "repositories" / "BLIP"
    command = [webui.python, "-c", _BLIP, source, target, str(_WORDS.index("cat"))]
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert target.stat().st_size < 2**20, "it is tiny"
    return target


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
