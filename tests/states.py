"""A state as a run writes it, without a model; and a host that counts its borrowers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lib_lora.check import find_images
from lib_lora.config.groups import TrainConfig
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.files.plain_values import Tensors, to_plain
from lib_lora.model.adapter import parameters, state_dict
from lib_lora.model.adapter_types import new_adapter
from lib_lora.model.base import BaseModel, Embedding, Target
from lib_lora.model.embeddings import bundle
from lib_lora.model.layer_settings import rank_and_alpha
from lib_lora.plan import Plan, make_plan
from lib_lora.settle import settle
from lib_lora.training.best import BestSoFar
from lib_lora.training.optimizer import Updater, embedding_groups
from lib_lora.training.precision import Precision
from lib_lora.training.resume import _candidates, data_fingerprint
from lib_lora.training.trainer import Trainer

TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
UNET = "lora_unet_down_blocks_0_attentions_0_proj_in"
MIDDLE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
LAYERS: dict[str, nn.Module] = {TEXT: nn.Linear(12, 20), UNET: nn.Conv2d(16, 12, 1), MIDDLE: nn.Linear(12, 20)}


def state_folder(text: str, work: Path) -> Path:
    """The folder with which a run resumes first where Resume from is `text`."""
    return _candidates(text, work)[0]


class Lender:
    """A host that has no model, or one to look at: who asks for it is counted."""

    def __init__(self, folder: Path, shown: BaseModel | None = None) -> None:
        self.folder, self.shown, self.borrowed = folder, shown, 0

    def look(self) -> BaseModel | None:
        return self.shown

    def problems(self) -> list[str]:
        return []

    def detected_model(self) -> DetectedModel:
        return DetectedModel(SD1, "a test")

    def device(self) -> torch.device:
        return torch.device("cpu")

    def lora_folder(self) -> Path:
        return self.folder

    def work_folder(self) -> Path:
        return self.folder / ".train-lora"

    def borrow_model(self) -> AbstractContextManager[Any]:
        self.borrowed += 1
        raise AssertionError("the model is taken")


def planned(config: TrainConfig) -> Plan:
    return make_plan(config, find_images(config))


def run_state(config: TrainConfig, plan: Plan, steps: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and tree of the state after `steps` updates with gradients of noise. `config`: with the rate of the text encoder."""
    draw = torch.Generator().manual_seed(0)
    adapter, cpu = config.adapter, torch.device("cpu")
    pairs = []
    for name, module in LAYERS.items():
        rank, alpha = rank_and_alpha(name, adapter)
        target = Target(name, module, "text_encoder" if name == TEXT else "unet")
        if rank and (adapter.adapter_type != "ia3" or name == MIDDLE):
            pairs.append(new_adapter(target, rank, alpha, adapter, 1, cpu, torch.float32))
    count = config.embedding.embedding_vectors
    word = Embedding("ohwx", (nn.Parameter(torch.randn(count, 8, generator=draw)),)) if count else None
    precision = Precision("no", torch.float32)
    further = embedding_groups(word, config.embedding)
    updater = Updater(pairs, settle(config, None).optimizer, plan.steps, precision, adapter, further)
    for _ in range(steps):
        for group in updater.optimizer.param_groups:
            for value in group["params"]:
                value.grad = torch.randn(value.shape, generator=draw)
        updater.update()
    best = BestSoFar()
    kept = {**state_dict(pairs), **(bundle(word) if word else {})}
    best.measured(1, 0.5, lambda: kept)
    held: Any = SimpleNamespace(adapters=pairs, updater=updater, _vectors=lambda: word.vectors if word else ())
    tree = {"session": Trainer.state(held), "best": best.state()}
    assert len(list(parameters(pairs))) == len(tree["session"]["adapters"])
    values = {
        "position": {"step": steps, "epoch": 0},
        "steps": plan.steps,
        "configuration": config.to_flat(),
        "data": data_fingerprint(plan),
        "model": "12345678",
        "precision": "no",
        "versions": {"train_lora": "0", "torch": torch.__version__, "python": "3"},
    }
    return values, tree


def as_written(values: dict[str, Any], tree: Any) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {}
    return {**values, "state": to_plain(tree, tensors)}, tensors
