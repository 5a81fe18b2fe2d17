"""The `ss_*` and `modelspec.*` entries of a LoRA file, from configuration and plan (sd-scripts `train_network.py`).

All values are strings. The webui reads several of them for its cards; see `tests/test_files.py`.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from lib_lora import __version__
from lib_lora.config.groups import all_options
from lib_lora.config.lycoris import lycoris_arguments, network_module
from lib_lora.config.settled import Settled
from lib_lora.data.dataset import Sample
from lib_lora.data.folders import Folder
from lib_lora.families.ddpm import STEPS
from lib_lora.families.family import Family
from lib_lora.model.base import ModelInfo
from lib_lora.output.metadata_size import MADE_BY, fitted
from lib_lora.plan import Plan
from lib_lora.training.precision import Precision

# entries that remain with no_metadata (sd-scripts SS_METADATA_MINIMUM_KEYS)
MINIMUM = {
    "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
}  # fmt: skip


@dataclass(frozen=True)
class RunFacts:
    """Facts for the metadata that are known only after the run."""

    started_at: float
    steps_done: int
    epoch: int
    precision: Precision
    optimizer: str
    checkpointing: bool = False


def file_metadata(config: Settled, plan: Plan, model: ModelInfo, facts: RunFacts, software: Mapping[str, Any]) -> dict[str, str]:
    """Every entry of the file except the hashes, cut to size."""
    return fitted(_entries(config, plan, model, facts, software)).texts


def cut_metadata(config: Settled, plan: Plan) -> tuple[str, ...]:
    """A note on every entry that will be cut; known before the model is touched."""
    facts = RunFacts(0.0, 0, 0, Precision("no", torch.float32), " ".join(config.optimizer.optimizer_args))
    return fitted(_entries(config, plan, ModelInfo("", None, None), facts, {})).told


def _entries(config: Settled, plan: Plan, model: ModelInfo, facts: RunFacts, software: Mapping[str, Any]) -> dict[str, Any]:
    programs = [f"sd-webui-train-lora {__version__}", *(f"{name} {version}" for name, version in software.items())]
    entries: dict[str, Any] = {
        **_run_entries(config, plan, facts),
        **_option_entries(config),
        **_settled_entries(config, facts),
        **_dataset_entries(config, plan),
        **_model_entries(model, velocity=config.objective.v_parameterization),
        **_modelspec_entries(config, model.family, facts),
        "ss_training_comment": config.run.training_comment or ", ".join(programs),
    }
    if config.run.no_metadata:  # sd-scripts keeps modelspec.*, too
        entries = {key: value for key, value in entries.items() if key in MINIMUM or key.startswith("modelspec.")}
    return entries


def _run_entries(config: Settled, plan: Plan, facts: RunFacts) -> dict[str, Any]:
    return {
        "ss_session_id": uuid.uuid4().int & 0xFFFFFFFF,
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": time.time(),
        "ss_num_train_images": sum(plan.samples[index].repeats for index in plan.learned),
        "ss_num_validation_images": len(plan.heldout),
        "ss_num_reg_images": sum(sample.repeats for sample in plan.samples if sample.is_reg),  # also those not needed
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_num_epochs": plan.epochs,
        "ss_epoch": facts.epoch,
        "ss_steps": facts.steps_done,
        "ss_max_train_steps": plan.steps,
        "ss_mixed_precision": facts.precision.name,
        "ss_optimizer": facts.optimizer,
    }


def _option_entries(config: Settled) -> dict[str, Any]:
    """Entries of the options that declare a key, as sd-scripts writes them."""
    found: dict[str, Any] = {}
    for opt in all_options():
        key, value = opt.declaration.metadata, config.value(opt)
        if key and not (key.startswith("modelspec.") and value == opt.default):
            found[key] = None if opt.declaration.none_by_default and value == opt.default else value
    return found


def _settled_entries(config: Settled, facts: RunFacts) -> dict[str, Any]:
    """Entries that depend on several options, or on the device."""
    optimizer, data = config.optimizer, config.data
    warmup = optimizer.lr_warmup_steps
    return {
        "ss_network_module": network_module(config.adapter),
        **_network_args(config),
        **_embedding_entries(config),
        "ss_learning_rate": optimizer.first_rate,
        "ss_lr_warmup_steps": int(warmup) if warmup % 1 == 0 else warmup,
        "ss_gradient_checkpointing": facts.checkpointing,
        "ss_total_batch_size": data.batch_size * optimizer.gradient_accumulation_steps,
        "ss_resolution": f"({data.resolution}, {data.height})",
        "ss_validate_every_n_epochs": data.validate_every_n_epochs or None if data.validation_split > 0 else None,
        "ss_fp8_base": facts.precision.fp8_base,
        "ss_fp8_base_unet": False,
        "ss_lowram": False,
        "ss_face_crop_aug_range": None,  # this and the next: sd-scripts always writes them
        "ss_sd_scripts_commit_hash": None,
    }


def _network_args(config: Settled) -> dict[str, Any]:
    """Options that sd-scripts takes as network_args and that are not at their defaults, as strings; the dropout is added."""
    prefix = "network_args."
    options = [opt for opt in all_options() if (opt.declaration.kohya or "").startswith(prefix)]
    given = {str(opt.declaration.kohya).removeprefix(prefix): str(config.value(opt)) for opt in options
             if config.value(opt) != opt.default}  # fmt: skip
    given = {**given, **lycoris_arguments(config.adapter)}
    return {"ss_network_args": {**given, "dropout": config.adapter.network_dropout or None}} if given else {}


def _embedding_entries(config: Settled) -> dict[str, Any]:
    """The embedding that is bundled in the file; a key of our own."""
    embedding = config.embedding
    if embedding.embedding_vectors == 0:
        return {}
    told = {"num_vectors_per_token": embedding.embedding_vectors, "init_word": embedding.init_word or config.text.trigger,
            "learning_rate": embedding.embedding_lr, "stop": embedding.stop_embedding_training or None}  # fmt: skip
    return {"ss_bundle_embeddings": {config.text.trigger: told}}


def _dataset_entries(config: Settled, plan: Plan) -> dict[str, Any]:
    data = config.data
    named, members = _named_folders(plan), _members(plan)
    buckets = {
        str(i): {"resolution": [size.width, size.height], "count": len(members)}
        for i, (size, members) in enumerate(plan.buckets.items())
    }
    sizes = [(plan.placements[index].bucket, plan.samples[index].size) for index in plan.trained]
    errors = [abs(bucket.width / bucket.height - size.width / size.height) for bucket, size in sizes]
    low, high = data.bucket_range if data.enable_bucket else (None, None)
    return {
        "ss_min_bucket_reso": low,
        "ss_max_bucket_reso": high,
        "ss_dataset_dirs": _folder_entries(members, named, is_reg=False),
        "ss_reg_dataset_dirs": _folder_entries(members, named, is_reg=True),
        "ss_tag_frequency": {name: _tags(members.get(folder.path, [])) for name, folder in named},
        "ss_bucket_info": {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors)} if data.enable_bucket else "null",
    }


def _folder_entries(members: Mapping[Path, list[Sample]], named: list[tuple[str, Folder]], *, is_reg: bool) -> dict[str, Any]:
    """Repeats and image counts of the training folders, or with `is_reg` of the regularisation folders."""
    return {
        name: {"n_repeats": folder.repeats, "img_count": len(members.get(folder.path, []))}
        for name, folder in named
        if folder.is_reg == is_reg
    }


def _named_folders(plan: Plan) -> list[tuple[str, Folder]]:
    """Folders by name; duplicates get a number."""
    seen = Counter[str]()
    named = []
    for folder in plan.folders:
        seen[folder.path.name] += 1
        number = seen[folder.path.name]
        named.append((folder.path.name if number == 1 else f"{folder.path.name} ({number})", folder))
    return named


def _members(plan: Plan) -> dict[Path, list[Sample]]:
    """Folder -> its samples, without those held out."""
    heldout, found = set(plan.heldout), defaultdict[Path, list[Sample]](list)
    for index, sample in enumerate(plan.samples):
        if index not in heldout:
            found[sample.path.parent].append(sample)
    return found


def _tags(samples: Sequence[Sample]) -> dict[str, int]:
    """How often each comma-separated tag occurs, once per image, lower case (sd-scripts `set_tag_frequency`)."""
    captions = [sample.caption for sample in samples]
    return dict(Counter(tag.strip().lower() for caption in captions for tag in caption.split(",") if tag.strip()))


def _model_entries(model: ModelInfo, *, velocity: bool) -> dict[str, Any]:
    entries = {
        "ss_v2": model.family.is_v2,
        "ss_base_model_version": model.family.base_version(velocity=velocity),
        "ss_sd_model_name": model.name,
        "ss_sd_model_hash": model.legacy_hash,
        "ss_new_sd_model_hash": model.sha256,
    }
    return {key: value for key, value in entries.items() if value is not None}


def _modelspec_entries(config: Settled, family: Family, facts: RunFacts) -> dict[str, Any]:
    entries = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.architecture(velocity=config.objective.v_parameterization),
        "modelspec.implementation": family.implementation,
        MADE_BY[0]: f"{MADE_BY[1]}{__version__}",
        "modelspec.title": config.run.metadata_title or config.run.name,
        "modelspec.resolution": f"{config.data.resolution}x{config.data.height}",
        "modelspec.date": datetime.fromtimestamp(int(facts.started_at)).isoformat(),  # local time, as sd-scripts
        "modelspec.prediction_type": "v" if config.objective.v_parameterization else "epsilon",
    }
    if (config.objective.min_timestep, config.objective.max_timestep) != (0, STEPS):
        entries["modelspec.timestep_range"] = f"{config.objective.min_timestep},{config.objective.max_timestep}"
    if config.text.clip_skip > 1:
        entries["modelspec.encoder_layer"] = str(config.text.clip_skip)
    return entries
