"""LoRA files, metadata, cards: their contents, and that each is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from lib_lora.config.groups import build_config
from lib_lora.data.dataset import Dataset, Folder, Sample
from lib_lora.data.sizes import Size
from lib_lora.errors import LoraFileError
from lib_lora.files import atomic
from lib_lora.files.lora_file import read, serialise, write
from lib_lora.model.base import ModelInfo
from lib_lora.model.delta import HADAMARD, delta
from lib_lora.output.card import write_card
from lib_lora.output.inspect import describe
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.output.preview import png
from lib_lora.plan import make_plan
from lib_lora.settle import settle
from lib_lora.training.precision import Precision

STATE = {
    "lora_unet_a.lora_down.weight": torch.randn(2, 6, generator=torch.Generator().manual_seed(1)),
    "lora_unet_a.lora_up.weight": torch.randn(5, 2, generator=torch.Generator().manual_seed(2)),
    "lora_unet_a.alpha": torch.tensor(1.0),
}


def metadata(**flat: object) -> dict[str, str]:
    flat = {"name": "my_cat", "trigger": "ohwx", "resolution": 256, "text_encoder_lr": 5e-5, **flat}
    config = settle(build_config(flat), None)
    folder = Folder(Path("3_cat"), 3, "cat", Path())
    samples = tuple(Sample(Path("3_cat") / f"{i}.png", f"Ohwx,  a Cat, tag{i}", 3, Size(300, 451), True) for i in range(2))
    facts = RunFacts(1e9, 5, 1, Precision("bf16", torch.bfloat16), "torch.optim.adamw.AdamW(eps=1e-08)")
    model = ModelInfo("sd15.safetensors", "abcd1234", None)
    return file_metadata(config, make_plan(config, Dataset(samples, (folder,), (), ())), model, facts, {"webui": "v1.10.1"})


def test_hashes_are_those_of_the_stored_bytes(tmp_path: Path) -> None:
    content = serialise(STATE, torch.float16, {"ss_a": "1", "modelspec.b": "2"})
    write(tmp_path / "a.safetensors", content)
    stored = (tmp_path / "a.safetensors").read_bytes()
    start = 8 + int.from_bytes(stored[:8], "little")
    _, found = read(tmp_path / "a.safetensors")
    assert found["sshs_model_hash"] == hashlib.sha256(stored[start:]).hexdigest()
    assert found["sshs_legacy_hash"] == hashlib.sha256(b"").hexdigest()[:8]  # a file below 1 MiB
    assert found["ss_a"] == "1" and found["modelspec.b"] == "2"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_survive_in_the_precision_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    write(tmp_path / "a.safetensors", serialise(STATE, dtype, {}))
    state, _ = read(tmp_path / "a.safetensors")
    assert all(torch.equal(state[key], STATE[key].to(dtype)) for key in STATE) and set(state) == set(STATE)


def test_what_is_not_finite_is_never_written() -> None:
    with pytest.raises(LoraFileError, match="not finite"):
        serialise({"a": torch.tensor([1.0, float("nan")])}, torch.float32, {})
    with pytest.raises(LoraFileError, match="not finite"):
        serialise({"a": torch.tensor([1e6])}, torch.float16, {})


@pytest.mark.parametrize("content", [b"", b"abc", (2**40).to_bytes(8, "little") + b"{}"])
def test_unreadable_files_get_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(LoraFileError, match="not a readable safetensors"):
        read(tmp_path / "a.safetensors")


@pytest.mark.case(27)
@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (atomic.os, "fsync"), "replace": (Path, "replace")}[broken], fail)
    with pytest.raises(LoraFileError, match="No space left on device"):
        write(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.case(50)
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "secret"
    target.write_bytes(b"old")
    for name in ("a.safetensors", "a.png", "b.json"):
        (tmp_path / name).symlink_to(target)
    write(tmp_path / "a.safetensors", b"new")
    atomic.write_atomically(tmp_path / "a.png", png(np.zeros((4, 6, 3), dtype=np.uint8)))
    write_card(tmp_path / "b.safetensors", activation_text="x", sd_version="SD1", preferred_weight=1.0)
    assert target.read_bytes() == b"old" and not any(
        (tmp_path / name).is_symlink() for name in ("a.safetensors", "a.png", "b.json")
    )
    assert (tmp_path / "a.safetensors").read_bytes() == b"new"


def test_metadata_is_text_and_says_what_kohya_says() -> None:
    found = metadata(clip_skip=2)
    assert all(isinstance(value, str) for value in found.values())
    expected = {
        "ss_output_name": "my_cat", "ss_network_module": "networks.lora", "ss_network_dim": "16", "ss_network_alpha": "16.0",
        "ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_clip_skip": "2", "ss_resolution": "(256, 256)",
        "ss_num_train_images": "6", "ss_steps": "5", "ss_seed": "42", "ss_mixed_precision": "bf16", "ss_min_snr_gamma": "None",
        "ss_max_token_length": "None", "ss_sd_model_name": "sd15.safetensors", "ss_sd_model_hash": "abcd1234",
        "modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.prediction_type": "epsilon", "modelspec.title": "my_cat",
        "modelspec.resolution": "256x256", "modelspec.encoder_layer": "2", "modelspec.date": datetime.fromtimestamp(10**9).isoformat(),
        "ss_training_started_at": "1000000000.0", "modelspec.trigger_phrase": "ohwx",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert "ss_new_sd_model_hash" not in found
    assert json.loads(found["ss_dataset_dirs"]) == {"3_cat": {"n_repeats": 3, "img_count": 2}}
    assert json.loads(found["ss_tag_frequency"]) == {"3_cat": {"ohwx": 2, "a cat": 2, "tag0": 1, "tag1": 1}}
    assert json.loads(found["ss_bucket_info"])["buckets"] == {"0": {"resolution": [256, 256], "count": 6}}


def test_metadata_covers_what_sd_scripts_always_writes() -> None:
    wanted = """ss_session_id ss_training_started_at ss_training_finished_at ss_output_name ss_learning_rate ss_text_encoder_lr
    ss_unet_lr ss_num_train_images ss_num_validation_images ss_num_reg_images ss_num_batches_per_epoch ss_num_epochs ss_epoch
    ss_steps ss_gradient_checkpointing ss_gradient_accumulation_steps ss_max_train_steps ss_lr_warmup_steps ss_lr_scheduler
    ss_network_module ss_network_dim ss_network_alpha ss_network_dropout ss_mixed_precision ss_full_fp16 ss_v2
    ss_base_model_version ss_clip_skip ss_max_token_length ss_cache_latents ss_seed ss_lowram ss_noise_offset
    ss_multires_noise_iterations ss_multires_noise_discount ss_adaptive_noise_scale ss_zero_terminal_snr ss_training_comment
    ss_sd_scripts_commit_hash ss_optimizer ss_max_grad_norm ss_caption_dropout_rate ss_caption_dropout_every_n_epochs
    ss_caption_tag_dropout_rate ss_face_crop_aug_range ss_prior_loss_weight ss_min_snr_gamma ss_scale_weight_norms
    ss_ip_noise_gamma ss_debiased_estimation ss_noise_offset_random_strength ss_ip_noise_gamma_random_strength ss_loss_type
    ss_huber_schedule ss_huber_scale ss_huber_c ss_fp8_base ss_fp8_base_unet ss_validation_seed ss_validation_split
    ss_max_validation_steps ss_validate_every_n_epochs ss_validate_every_n_steps ss_resize_interpolation
    ss_batch_size_per_device ss_total_batch_size ss_resolution ss_color_aug ss_flip_aug ss_random_crop ss_shuffle_caption
    ss_enable_bucket ss_bucket_no_upscale ss_min_bucket_reso ss_max_bucket_reso ss_keep_tokens ss_dataset_dirs
    ss_reg_dataset_dirs ss_tag_frequency ss_bucket_info"""
    assert set(wanted.split()) <= set(metadata())
    assert metadata(enable_bucket=False)["ss_bucket_info"] == "null"


def test_little_metadata_is_what_sd_scripts_leaves() -> None:
    found = metadata(no_metadata=True, training_comment="x")
    assert {key for key in found if not key.startswith("modelspec.")} == {
        "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha"
    }  # fmt: skip
    assert found["modelspec.title"] == "my_cat"


def test_what_a_person_tells_of_the_lora() -> None:
    told = {
        "title": "My cat",
        "author": "me",
        "description": "A cat.",
        "license": "CC0",
        "tags": "cat,pet",
        "usage_hint": "softly",
    }
    plain, found = metadata(), metadata(training_comment="first try", **{f"metadata_{key}": text for key, text in told.items()})
    assert {key: found[f"modelspec.{key}"] for key in told} == told
    assert found["ss_training_comment"] == "first try" and found["ss_output_name"] == "my_cat"
    assert plain["modelspec.title"] == "my_cat" and plain["ss_training_comment"].startswith("sd-webui-train-lora")
    assert not [key for key in told if key != "title" and f"modelspec.{key}" in plain]


def test_metadata_says_how_images_are_shown() -> None:
    plain = metadata()
    names = ("ss_flip_aug", "ss_color_aug", "ss_random_crop", "ss_cache_latents", "ss_resize_interpolation", "ss_resolution")
    assert [plain[name] for name in names] == ["False", "False", "False", "True", "None", "(256, 256)"]
    found = metadata(flip_aug=True, color_aug=True, random_crop=True, cache_latents=False, resize_interpolation="box",
                     resolution_height=320, min_bucket_reso=200, max_bucket_reso=1000)  # fmt: skip
    assert [found[name] for name in names] == ["True", "True", "True", "False", "box", "(256, 320)"]
    assert (found["ss_min_bucket_reso"], found["ss_max_bucket_reso"]) == ("192", "1024")  # as sd-scripts moves them
    assert found["modelspec.resolution"] == "256x320" and metadata(enable_bucket=False)["ss_min_bucket_reso"] == "None"


def test_two_folders_of_one_name_are_both_counted() -> None:
    config = settle(build_config({"name": "x", "text_encoder_lr": 5e-5}), None)
    folders = tuple(Folder(Path(parent) / "3_cat", 3, "cat", Path()) for parent in "ab")
    samples = tuple(Sample(folder.path / "0.png", "cat", 3, Size(512, 512), False) for folder in folders)
    facts = RunFacts(1e9, 5, 1, Precision("no", torch.float32), "AdamW")
    found = file_metadata(config, make_plan(config, Dataset(samples, folders, (), ())), ModelInfo("m", None, None), facts, {})
    assert set(json.loads(found["ss_dataset_dirs"])) == {"3_cat", "3_cat (2)"}


@pytest.mark.case(66)
def test_card_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    lora = tmp_path / "猫.safetensors"
    (tmp_path / "猫.json").write_text(json.dumps({"notes": "mine", "preferred weight": 0.7, "extra": 1}))
    card = json.loads(
        write_card(lora, activation_text="ohwx", sd_version="SD1", preferred_weight=1.0).read_text(encoding="utf-8")
    )
    assert card == {"description": "", "sd version": "SD1", "activation text": "ohwx", "preferred weight": 0.7, "negative text": "",
                    "notes": "mine", "extra": 1}  # fmt: skip


def test_a_card_that_is_no_object_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    write_card(tmp_path / "a.safetensors", activation_text="x", sd_version="SD1", preferred_weight=1.0)
    assert (
        json.loads((tmp_path / "a.json").read_text())["activation text"] == "x" and (tmp_path / "a.json.bad").read_text() == "[]"
    )


TYPES: dict[str, dict[str, torch.Tensor]] = {
    "LoRA": {"lora_down.weight": torch.randn(2, 6, 1, 1), "lora_up.weight": torch.randn(5, 2, 1, 1)},
    "LoCon": {"lora_down.weight": torch.randn(2, 6, 3, 3), "lora_up.weight": torch.randn(5, 2, 1, 1)},
    "DoRA": {"lora_down.weight": torch.randn(2, 6), "lora_up.weight": torch.randn(5, 2), "dora_scale": torch.rand(1, 6)},
    "LoHa": {key: torch.randn(5, 2) if key.endswith("a") else torch.randn(2, 6) for key in HADAMARD},
    "LoKr": {"lokr_w1": torch.randn(1, 2), "lokr_w2_a": torch.randn(5, 2), "lokr_w2_b": torch.randn(2, 3)},
    "full differences": {"diff": torch.randn(5, 6)},
    "LoHa with DoRA": {key: torch.randn(5, 2) if key.endswith("a") else torch.randn(2, 6) for key in HADAMARD}
    | {"dora_scale": torch.rand(5, 1)},
}


OF_THE_WEIGHT: dict[str, tuple[str, dict[str, torch.Tensor], list[int]]] = {  # name, tensors, ranks
    "(IA)³": ("(IA)³", {"weight": torch.randn(6), "on_input": torch.tensor(1)}, []),
    "OFT": ("OFT", {"oft_blocks": torch.randn(2, 3, 3), "alpha": torch.tensor(0.0)}, []),
    **{
        f"GLoRA, {order}": ("GLoRA", {f"{key}.weight": torch.randn(shape) for key, shape in shapes.items()}, [2])
        for order, shapes in {
            "before 3.0": {"a1": (2, 6), "a2": (6, 2), "b1": (2, 6), "b2": (6, 2)},
            "since 3.0": {"a1": (6, 2), "a2": (2, 6), "b1": (6, 2), "b2": (2, 6)},
        }.items()
    },
}


@pytest.mark.parametrize("case", OF_THE_WEIGHT)
def test_inspect_of_types_that_multiply_the_weight(case: str, tmp_path: Path) -> None:
    name, tensors, ranks = OF_THE_WEIGHT[case]
    state = {f"lora_unet_a.{key}": value for key, value in tensors.items()}
    write(tmp_path / "a.safetensors", serialise(state, torch.float16, {}))
    found = describe(tmp_path / "a.safetensors")
    assert (found["type"], found["ranks"], found["incomplete"], found["modules"]) == (name, ranks, [], 1)
    assert "norm_max" not in found and found["strongest"] == [], "there is no norm without the weight"
    order = found.get("glora_order", "")
    assert ("LyCORIS " + case.removeprefix("GLoRA, ") in order) if name == "GLoRA" else order == ""
    assert ("the webui's loader fails" in order) == (case == "GLoRA, since 3.0")


@pytest.mark.parametrize("kind", TYPES)
def test_inspect_names_the_type(kind: str, tmp_path: Path) -> None:
    tensors = TYPES[kind]
    state = {f"lora_unet_a.{key}": value for key, value in tensors.items()}
    if kind != "full differences":
        state["lora_unet_a.alpha"] = torch.tensor(1.0)
    write(tmp_path / "a.safetensors", serialise(state, torch.float32, {}))
    found = describe(tmp_path / "a.safetensors")
    plain = {key: value for key, value in tensors.items() if key != "dora_scale"}
    shape = (5, 6, 3, 3) if kind == "LoCon" else (5, 6)
    assert found["type"] == kind and found["incomplete"] == [] and found["ranks"] == ([] if kind == "full differences" else [2])
    alpha = None if kind == "full differences" else 1.0
    assert found["norm_max"] == pytest.approx(float(delta(plain, alpha, torch.zeros(shape)).norm()), rel=1e-4)
    axis = {"DoRA": "inputs: the webui's loader reads these", "LoHa with DoRA": "outputs: diffusers"}.get(kind)
    assert found["dora_axis"].startswith(axis) if axis else "dora_axis" not in found


def test_inspect_of_a_file_without_a_known_type(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", serialise({"lora_unet_a.hada_w1_a": torch.zeros(2, 3)}, torch.float32, {}))
    with pytest.raises(LoraFileError, match="contains no LoRA"):
        describe(tmp_path / "a.safetensors")


def test_inspect(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", serialise(STATE, torch.float32, {"ss_x": "y"}))
    found = describe(tmp_path / "a.safetensors")
    merged = 0.5 * STATE["lora_unet_a.lora_up.weight"] @ STATE["lora_unet_a.lora_down.weight"]
    assert found["norm_max"] == pytest.approx(float(merged.norm()), rel=1e-5)
    assert (found["modules"], found["ranks"], found["alphas"], found["metadata"]["ss_x"]) == (1, [2], [1.0], "y")
