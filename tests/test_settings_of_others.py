"""Small imitations of settings files of other programs and versions, and how each is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_lora.kohya.files import parse_toml, source_of
from lib_lora.kohya.importing import Imported, import_file, import_source
from tests.test_kohya_import import gui, toml, verdict, why
from tests.test_kohya_table import KEYS

# fields that every form since v22.3.1 has; with the others they make a file whole
SINCE_V22 = {"use_tucker", "use_scalar", "rank_dropout_scale", "train_norm", "constrain", "rescaled", "LyCORIS_preset", "dora_wd"}


def whole(**changes: Any) -> Imported:
    """A file of v21.7.6 to v22.3.0 with all fields of its form, empty but for `changes`."""
    newer = ("anima_", "hunyuan_", "lumina_", "show_", "sd3_", "flux1_", "train_inpainting", "loraplus_")
    names = [name for name in KEYS["kohya_ss"] if not name.startswith(newer) and name not in SINCE_V22]
    assert len(names) > 80
    return gui(**{**dict.fromkeys(names, ""), **changes})


def refused(found: Imported) -> list[str]:
    return sorted(said.key for said in (*found.not_supported, *found.unknown))


V20 = {
    "v2": False, "v_parameterization": False, "max_resolution": "512,640", "lr_scheduler": "cosine", "lr_warmup": "10",
    "train_batch_size": 2, "epoch": "3", "save_every_n_epochs": "1", "mixed_precision": "fp16", "save_precision": "fp16",
    "seed": "1234", "num_cpu_threads_per_process": 2, "cache_latent": True, "caption_extention": ".txt", "enable_bucket": True,
    "full_fp16": False, "no_token_padding": False, "stop_text_encoder_training": 0, "use_8bit_adam": True, "xformers": True,
    "save_model_as": "safetensors", "shuffle_caption": True, "unet_lr": "1e-4", "text_encoder_lr": "5e-5", "network_dim": 128,
    "network_train": "Text encoder and Unet", "clip_skip": 2, "prior_loss_weight": 1.0, "lora_network_weights": "", "resume": "",
}  # fmt: skip
V21 = {
    "LoRA_type": "Kohya LoCon", "conv_dim": 4, "conv_alpha": 1, "conv_dims": "", "conv_alphas": "", "network_dim": 8,
    "network_alpha": 4, "unet_lr": 1e-4, "text_encoder_lr": 5e-5, "learning_rate": 1e-4, "max_train_epochs": "", "epoch": 2,
    "use_wandb": True, "wandb_api_key": "", "save_as_bool": False, "optimizer": "AdamW8bit", "optimizer_args": "",
    "use_cp": True, "train_on_input": True, "decompose_both": False, "noise_offset_type": "Original", "noise_offset": 0.05,
    "min_snr_gamma": 5, "max_token_length": "75", "caption_extension": ".txt", "enable_bucket": True, "bucket_reso_steps": 64,
    "sdxl_min_timestep": 10, "lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": "", "max_resolution": "768,768",
}  # fmt: skip
V23 = {
    "LoRA_type": "LyCORIS/LoKr", "LyCORIS_preset": "full", "network_dim": 10000, "network_alpha": 10000, "conv_dim": 100000,
    "conv_alpha": 100000, "factor": 8, "decompose_both": False, "use_cp": False, "use_tucker": True, "use_scalar": False,
    "bypass_mode": False, "dora_wd": False, "train_on_input": True, "rescaled": True, "constrain": 3, "rank_dropout_scale": False,
    "train_norm": False, "unit": 1, "down_lr_weight": "0,1", "block_dims": "1,2", "learning_rate": 1e-3, "unet_lr": 0,
    "text_encoder_lr": 0, "optimizer": "Prodigy", "epoch": 4, "use_wandb": False, "scale_weight_norms": 1, "seed": "",
}  # fmt: skip
V25 = {
    "LoRA_type": "Standard", "sdxl": True, "flux1_checkbox": False, "sd3_checkbox": False, "discrete_flow_shift": 3,
    "model_prediction_type": "sigma_scaled", "timestep_sampling": "sigma", "guidance_scale": 3.5, "t5xxl_max_token_length": 512,
    "weighting_scheme": "logit_normal", "logit_mean": 0, "logit_std": 1, "mode_scale": 1.29, "train_blocks": "all",
    "fp8_base": False, "fp8_base_unet": True, "ggpo_beta": 0.01, "ggpo_sigma": 0.03, "loraplus_lr_ratio": 16,
    "loraplus_unet_lr_ratio": 0, "network_dim": 8, "network_alpha": 4, "unet_lr": 1e-4, "learning_rate": 1e-4, "text_encoder_lr": 0,
    "epoch": 2, "max_train_epochs": 0, "max_train_steps": 0, "optimizer": "AdamW", "max_resolution": "1024,1024",
    "caption_extension": ".txt", "log_with": "", "wandb_api_key": "", "dynamo_backend": "no", "num_machines": 1, "num_processes": 1,
    "huggingface_repo_type": "", "huggingface_repo_visibility": "", "save_model_as": "safetensors", "max_timestep": 1000,
}  # fmt: skip


def test_a_file_of_the_first_forms() -> None:
    found = gui(**V20)
    assert refused(found) == []
    wanted = {
        "cache_latents": True, "caption_extension": ".txt", "optimizer": "AdamW8bit", "rank": 128, "unet_lr": 1e-4,
        "text_encoder_lr": 5e-5, "lr_warmup_steps": 0.1, "epochs": 3, "resolution": 512, "resolution_height": 640, "clip_skip": 2,
    }  # fmt: skip
    assert {name: found.flat[name] for name in wanted} == wanted


@pytest.mark.parametrize(("value", "rates"), [("Unet only", (1e-4, 0.0)), ("Text encoder only", (0.0, 5e-5))])
def test_the_first_forms_train_one_part(value: str, rates: tuple[float, float]) -> None:
    found = gui(**{**V20, "network_train": value})
    assert (found.flat["unet_lr"], found.flat["text_encoder_lr"]) == rates


@pytest.mark.parametrize("locon", [1, 0, False])
def test_locon_of_v21_1(locon: object) -> None:
    found = gui(**V20, locon=locon, conv_dim=4, conv_alpha=2)
    assert refused(found) == [] and found.flat.get("conv_dim") == (4 if locon else None)


def test_a_file_of_v21() -> None:
    found = gui(**V21)
    assert refused(found) == []
    wanted = {"rank": 8, "conv_dim": 4, "noise_offset": 0.05, "min_timestep": 10, "epochs": 2, "lr_scheduler_num_cycles": 2}
    assert {name: found.flat[name] for name in wanted} == wanted
    assert verdict(found, "use_wandb") == verdict(found, "use_cp") == verdict(found, "train_on_input") == "ignored"


def test_a_file_of_v23_with_whole_matrices() -> None:
    found = gui(**V23)
    assert refused(found) == []
    wanted = {"adapter_type": "lokr", "full_matrix": True, "factor": 8, "unet_lr": 1e-3, "text_encoder_lr": 1e-3}
    assert {name: found.flat[name] for name in wanted} == wanted
    assert found.flat["conv_dim"] > 0 and "down_lr_weight" not in found.flat and "block_dims" not in found.flat


def test_a_file_of_v25() -> None:
    found = gui(**V25)
    assert refused(found) == []
    assert found.flat["unet_lr"] == 1e-4 and found.flat["text_encoder_lr"] == 0 and found.flat["rank"] == 8


def test_loraplus_at_the_top_level_is_told_to_be_without_effect_up_to_v25() -> None:
    found = gui(**V25)
    assert "loraplus_lr_ratio" not in found.flat and verdict(found, "loraplus_lr_ratio") == "ignored"
    assert "up to v25" in why(found, "loraplus_lr_ratio")
    newer = gui(**V25, anima_checkbox=False, train_inpainting=False)
    assert newer.flat["loraplus_lr_ratio"] == 16
    written = toml('network_module = "networks.lora"\nloraplus_unet_lr_ratio = 8.0\n')
    assert "loraplus_unet_lr_ratio" not in written.flat and "up to v25" in why(written, "loraplus_unet_lr_ratio")
    inside = toml('network_module = "networks.lora"\nnetwork_args = ["loraplus_unet_lr_ratio=8"]\n')
    assert inside.flat["loraplus_unet_lr_ratio"] == 8


def test_newer_models_are_refused_where_their_switch_is_on() -> None:
    found = gui(**{**V25, "flux1_checkbox": True, "LoRA_type": "Flux1"})
    assert {"flux1_checkbox", "discrete_flow_shift", "guidance_scale", "LoRA_type", "timestep_sampling"} <= set(refused(found))
    flux = toml('network_module = "networks.lora_flux"\nae = "ae.sft"\ntimestep_sampling = "sigmoid"\n')
    assert refused(flux) == ["ae", "network_module", "timestep_sampling"]
    assert refused(toml('network_module = "networks.lora"\ntimestep_sampling = "sigma"\ndiscrete_flow_shift = 3.0\n')) == []


TYPES = ("Standard", "Kohya LoCon", "Kohya DyLoRA", "LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr", "LyCORIS/iA3",
         "LyCORIS/Diag-OFT", "LyCORIS/GLoRA")  # fmt: skip
LYCORIS = set(TYPES[3:])
# what the form hands on, from its own sources
WHERE = {
    "train_on_input": {"LyCORIS/iA3"},
    "bypass_mode": {"LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr"},
    "use_scalar": {"LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr"},
    "use_cp": {"LyCORIS/LoKr"},
    "rescaled": {"LyCORIS/Diag-OFT"},
    "constrain": {"LyCORIS/Diag-OFT"},
    "use_tucker": LYCORIS - {"LyCORIS/iA3", "LyCORIS/LoKr"},
    "rank_dropout_scale": LYCORIS - {"LyCORIS/iA3"},
    "train_norm": LYCORIS - {"LyCORIS/iA3"},
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", WHERE)
def test_only_what_the_form_hands_on_is_refused(key: str, kind: str) -> None:
    found = gui(LoRA_type=kind, network_dim=8, **{key: 2 if key == "constrain" else True})
    assert verdict(found, key) == ("not_supported" if kind in WHERE[key] else "ignored")


def test_what_v21_handed_on_by_type() -> None:
    assert refused(whole(LoRA_type="LyCORIS/LoHa", use_cp=True, network_dim=8)) == ["use_cp"]
    found = whole(LoRA_type="LyCORIS/LoKr", decompose_both=True, rank_dropout=0.2, network_dim=8)
    assert refused(found) == [] and not {"decompose_both", "rank_dropout"} & set(found.flat)


def test_every_key_that_a_form_ever_wrote_is_known() -> None:
    for name in ("kohya_ss_older", "lora_scripts", "lora_easy"):
        for value in ("", False, 0, "x", 1):
            found = gui(**dict.fromkeys([key for key in KEYS[name] if "." not in key], value))
            assert found.unknown == [], name


def test_what_is_off_is_ignored_also_where_nobody_knows_it() -> None:
    found = toml('network_dim = 8\nema_enabled = false\nnew = 0\nother = ""\nthird = "none"\nfourth = true\n')
    assert refused(found) == ["fourth"] and verdict(found, "ema_enabled") == "ignored"


@pytest.mark.parametrize(
    "foreign",
    [
        "epochs = 1",
        "rank = 3",
        "steps = 7",
        'trigger = "x"',
        "preview_steps = 3",
        'set_by_itself = "rank"',
        "epochs = 1\nrank = 3",
    ],
)
def test_one_foreign_key_leaves_the_file_kohyas(foreign: str) -> None:
    text = 'network_module = "networks.lora"\nnetwork_dim = 8\nresolution = "512,640"\nunet_lr = 1e-4\nepoch = 4\n'
    with_it, without = toml(text + foreign), toml(text)
    assert with_it.flat == without.flat and with_it.flat["caption_extension"] == ".caption"
    assert [said.key for said in with_it.unknown] == [line.partition(" ")[0] for line in foreign.split("\n")]
    assert refused(import_source(source_of({**V25, "epochs": 9}, toml=False, ours_first=True))) == ["epochs"]


def test_a_kohya_key_leaves_our_file_ours() -> None:
    ours = {"rank": 8, "steps": 20, "trigger": "x", "filename_captions": True, "network_dim": 4}
    assert source_of(ours, toml=False).form == "ours"


def test_the_network_decides_between_kohyas_two_forms() -> None:
    assert source_of({"network_module": "networks.lora", "unet_lr": 0}, toml=False).form == "sd-scripts"
    assert source_of({"LoRA_type": "Standard", "unet_lr": 0}, toml=True).form == "kohya_ss"


@pytest.mark.parametrize(("given", "wanted"), [(255, "225"), (229, "225"), (150, "150"), (199, "150"), (77, "75"), (75, "75")])
def test_lengths_of_captions_are_whole_pieces(given: int, wanted: str) -> None:
    found = toml(f"max_token_length = {given}\n")
    assert found.flat["max_token_length"] == wanted and refused(found) == []


def test_lengths_that_have_no_pieces_are_refused() -> None:
    assert refused(toml("max_token_length = 300\n")) == refused(toml("max_token_length = 20\n")) == ["max_token_length"]


@pytest.mark.parametrize("rank", [10000, 100000, "100000"])
def test_a_lokr_rank_that_no_layer_has_means_whole_matrices(rank: Any) -> None:
    arguments = [f"conv_dim={rank}", "conv_alpha=1", "algo=lokr"]
    found = import_source(source_of(
        {"network_module": "lycoris.kohya", "network_dim": rank, "network_alpha": 1, "network_args": arguments}, toml=True))  # fmt: skip
    assert refused(found) == [] and found.flat["full_matrix"] is True and found.config().adapter.conv_dim > 0


@pytest.mark.parametrize(("rank", "conv"), [(100000, 8), (8, 100000)])
def test_whole_matrices_of_some_layers_alone_are_refused(rank: int, conv: int) -> None:
    found = gui(LoRA_type="LyCORIS/LoKr", network_dim=rank, conv_dim=conv, factor=8)
    assert refused(found) == ["network_dim" if rank > conv else "conv_dim"]


def test_whole_matrices_are_of_lokr_alone() -> None:
    assert refused(gui(LoRA_type="LyCORIS/LoHa", network_dim=100000)) == ["network_dim"]


@pytest.mark.parametrize("bypass", [None, "False", "false"])
def test_dora_tells_when_lycoris_trained_none(bypass: str | None) -> None:
    more = [f"bypass_mode={bypass}"] if bypass else []
    found = import_source(source_of(
        {"network_module": "lycoris.kohya", "network_args": ["algo=locon", "dora_wd=True", *more]}, toml=True))  # fmt: skip
    assert found.flat["adapter_type"] == "dora"
    assert ("3.1.0" in why(found, "network_args")) is (bypass is None)


def test_keys_of_network_args_outside_of_them_have_no_effect() -> None:
    found = toml('network_module = "networks.lora"\nconv_dim = 8\nrank_dropout = 0.5\n')
    assert refused(found) == [] and not {"conv_dim", "rank_dropout"} & set(found.flat)
    assert "network_args" in why(found, "conv_dim")


LORA_SCRIPTS = """
model_train_type = "sdxl-lora"
network_module = "lycoris.kohya"
lycoris_algo = "lokr"
lokr_factor = 6
conv_dim = 4
conv_alpha = 2
network_dim = 8
network_alpha = 8
train_norm = false
dropout = 0
enable_block_weights = false
down_lr_weight = "1,0"
enable_base_weight = true
base_weights = "/a.safetensors\\n/b.safetensors"
base_weights_multiplier = "0.5\\n1"
enable_preview = true
positive_prompts = "1girl, solo"
negative_prompts = "lowres"
sample_width = 512
sample_height = 768
sample_cfg = 7
sample_seed = 2333
sample_steps = 24
sample_every_n_epochs = 2
optimizer_type = "AdamW"
prodigy_d_coef = "2.0"
optimizer_args_custom = ["weight_decay=0.1"]
max_token_length = 255
learning_rate = "1e-4"
unet_lr = "1e-4"
text_encoder_lr = "1e-5"
max_train_epochs = 3
randomly_choice_prompt = false
"""


def test_a_form_of_lora_scripts() -> None:
    found = toml(LORA_SCRIPTS, keep_names=True)
    assert refused(found) == []
    wanted = {
        "adapter_type": "lokr", "factor": 6, "conv_dim": 4, "conv_alpha": 2.0, "epochs": 3, "unet_lr": 1e-4,
        "text_encoder_lr": 1e-5, "optimizer_args": ("weight_decay=0.1",), "max_token_length": "225",
        "base_weights": ("/a.safetensors", "/b.safetensors"), "base_weights_multiplier": ("0.5", "1"),
        "sample_prompts": "1girl, solo --n lowres --w 512 --h 768 --l 7 --s 24 --d 2333", "sample_every_n_epochs": 2,
    }  # fmt: skip
    assert {name: found.flat[name] for name in wanted} == wanted
    assert verdict(found, "down_lr_weight") == verdict(found, "prodigy_d_coef") == "ignored"


def test_what_lora_scripts_hides_says_nothing() -> None:
    found = toml(LORA_SCRIPTS.replace("= true", "= false"), keep_names=True)
    assert refused(found) == [] and not {"sample_prompts", "sample_every_n_epochs", "base_weights"} & set(found.flat)


def test_other_models_of_lora_scripts_are_refused() -> None:
    assert "model_train_type" in refused(toml(LORA_SCRIPTS.replace("sdxl-lora", "flux-lora")))


LORA_EASY = """
[[subsets]]
name = "subset 1"
image_dir = "/photos/5_cat"
num_repeats = 5
caption_extension = ".txt"
shuffle_caption = true
keep_tokens = 1
flip_aug = false
[train_mode]
train_mode = "lora"
[general_args.args]
pretrained_model_name_or_path = "/models/a.safetensors"
mixed_precision = "bf16"
seed = 23
clip_skip = 2
max_train_epochs = 4
max_token_length = 225
sdxl = true
gradient_checkpointing = true
[general_args.dataset_args]
resolution = [768, 1024]
batch_size = 2
[network_args.args]
network_dim = 32
network_alpha = 16.0
min_timestep = 0
max_timestep = 1000
fa = false
[network_args.args.network_args]
conv_dim = 8
conv_alpha = 4.0
algo = "locon"
dora_wd = true
bypass_mode = false
preset = ""
[optimizer_args.args]
optimizer_type = "AdamW"
lr_scheduler = "cosine"
learning_rate = 0.0001
unet_lr = 0.0
text_encoder_lr = 0.00005
warmup_ratio = 0.1
max_grad_norm = 1.0
[optimizer_args.args.optimizer_args]
weight_decay = "0.1"
betas = "0.9,0.99"
amsgrad = "false"
[bucket_args.dataset_args]
enable_bucket = true
min_bucket_reso = 512
max_bucket_reso = 2048
bucket_reso_steps = 64
[saving_args.args]
output_name = "cat"
save_precision = "fp16"
save_model_as = "safetensors"
tag_occurrence = true
save_toml = true
"""


def test_a_file_of_lora_easy() -> None:
    found = toml(LORA_EASY, keep_names=True)
    assert refused(found) == []
    wanted = {
        "data": ("/photos/5_cat",), "caption_extension": ".txt", "shuffle_caption": True, "keep_tokens": 1, "seed": 23,
        "epochs": 4, "resolution": 768, "resolution_height": 1024, "batch_size": 2, "rank": 32, "alpha": 16.0, "conv_dim": 8,
        "adapter_type": "dora", "unet_lr": 1e-4, "text_encoder_lr": 5e-5, "lr_warmup_steps": 0.1, "enable_bucket": True,
        "min_bucket_reso": 512, "name": "cat", "optimizer_args": ("weight_decay=0.1", "betas=0.9,0.99", "amsgrad=False"),
        "gradient_checkpointing": "on", "mixed_precision": "bf16", "max_token_length": "225",
    }  # fmt: skip
    assert {name: found.flat[name] for name in wanted} == wanted
    assert "0" in why(found, "optimizer_args.args.unet_lr")


def test_lora_easy_without_an_algorithm_is_kohyas_own() -> None:
    text = LORA_EASY.replace('algo = "locon"\n', "").replace("dora_wd = true\n", "")
    found = toml(text.replace("conv_alpha = 4.0", "conv_alpha = 4.0\nblock_dims = [2, 4]"), keep_names=True)
    assert refused(found) == [] and (found.config().adapter.adapter_type, found.flat["block_dims"]) == ("lora", "2,4")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("fa = false", "fa = true", "network_args.args.fa"),
        ('"AdamW"', '"Came"', "optimizer_args.args.optimizer_type"),
        ('lr_scheduler = "cosine"', 'lr_scheduler_type = "LoraEasyCustomOptimizer.Rex"', "optimizer_args.args.lr_scheduler_type"),
        ('train_mode = "lora"', 'train_mode = "textual_inversion"', "train_mode.train_mode"),
    ],
)
def test_what_lora_easy_brings_along_is_refused_by_name(old: str, new: str, key: str) -> None:
    assert key in refused(toml(LORA_EASY.replace(old, new)))


def test_the_flat_files_of_lora_easy_before_it_had_a_form() -> None:
    flat = {
        "base_model": "/a.safetensors", "img_folder": "/photos", "output_folder": "/out", "change_output_name": "cat",
        "save_json_folder": None, "save_json_only": False, "tag_occurrence_txt_file": True, "net_dim": 32, "alpha": 16.0,
        "scheduler": "cosine_with_restarts", "cosine_restarts": 2, "scheduler_power": 1, "warmup_lr_ratio": 0.05,
        "learning_rate": 1e-4, "unet_lr": None, "text_encoder_lr": 5e-5, "train_resolution": 512, "height_resolution": 768,
        "batch_size": 3, "clip_skip": 2, "test_seed": 23, "num_epochs": 5, "max_steps": None, "buckets": True,
        "min_bucket_resolution": 320, "max_bucket_resolution": 960, "shuffle_captions": True, "lyco": True,
        "network_args": {"conv_dim": "16", "conv_alpha": "8", "algo": "loha"}, "optimizer_type": "AdamW",
        "optimizer_args": {"weight_decay": "0.1", "betas": "0.9,0.99"}, "caption_extension": ".txt", "gradient_acc_steps": None,
    }  # fmt: skip
    found = import_source(source_of(flat, toml=False), keep_names=True)
    assert refused(found) == []
    wanted = {
        "data": ("/photos",), "name": "cat", "rank": 32, "alpha": 16.0, "lr_scheduler": "cosine_with_restarts",
        "lr_scheduler_num_cycles": 2, "lr_warmup_steps": 0.05, "unet_lr": 1e-4, "text_encoder_lr": 5e-5, "resolution": 512,
        "resolution_height": 768, "batch_size": 3, "seed": 23, "epochs": 5, "enable_bucket": True, "min_bucket_reso": 320,
        "adapter_type": "loha", "conv_dim": 16, "optimizer_args": ("weight_decay=0.1", "betas=0.9,0.99"), "shuffle_caption": True,
    }  # fmt: skip
    assert {name: found.flat[name] for name in wanted} == wanted
    by_steps = import_source(source_of({**flat, "max_steps": 90}, toml=False), keep_names=True)
    assert by_steps.flat["steps"] == 90 and "epochs" not in by_steps.flat


def test_sizes_that_are_no_multiples_of_8() -> None:
    with_buckets = gui(max_resolution="512,650", enable_bucket=True)
    assert with_buckets.flat["resolution"] * with_buckets.flat["resolution_height"] == 512 * 650
    without = gui(max_resolution="512,650", enable_bucket=False)
    assert (without.flat["resolution"], without.flat["resolution_height"]) == (512, 648)
    assert "cropped" in why(without, "max_resolution")


def test_a_step_of_buckets_that_are_off_says_nothing() -> None:
    assert refused(gui(bucket_reso_steps=1, enable_bucket=False)) == []
    assert refused(gui(bucket_reso_steps=1, enable_bucket=True)) == ["bucket_reso_steps"]


def test_rates_of_two_text_encoders() -> None:
    assert toml("text_encoder_lr = [1e-5, 1e-5]\n").flat["text_encoder_lr"] == 1e-5
    assert refused(toml("text_encoder_lr = [1e-5, 2e-5]\n")) == ["text_encoder_lr"]


def test_a_largest_norm_says_nothing_where_lycoris_has_none() -> None:
    assert "scale_weight_norms" not in gui(LoRA_type="LyCORIS/iA3", scale_weight_norms=1).flat
    assert gui(LoRA_type="LyCORIS/LoHa", scale_weight_norms=1).flat["scale_weight_norms"] == 1


@pytest.mark.parametrize("named", ["./test/config/data.toml", "D:\\\\kohya_ss\\\\test\\\\config\\\\data.toml", "data.toml"])
def test_a_dataset_file_is_found_from_where_the_form_was_started(named: str, tmp_path: Path) -> None:
    folder = tmp_path / "test" / "config"
    folder.mkdir(parents=True)
    (folder / "data.toml").write_text('[general]\nresolution = 640\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "5_x"\n')
    (folder / "run.toml").write_text(f'network_dim = 8\ndataset_config = "{named}"\n')
    found = import_file(folder / "run.toml")
    assert refused(found) == [] and found.flat["resolution"] == 640


def test_the_last_of_an_argument_given_twice_counts() -> None:
    settings = parse_toml('network_args = ["conv_dim=9999", "conv_dim=6"]\nnetwork_module = "networks.lora"\n')
    found = import_source(source_of(settings, toml=True))
    assert refused(found) == [] and found.flat["conv_dim"] == 6


@pytest.mark.parametrize("value", ["inf", "nan", 1e308, [[1]], {"a": 1}, True, -1])
def test_odd_values_give_sentences(value: Any) -> None:
    names = (
        "max_token_length",
        "lr_scheduler_num_cycles",
        "epoch",
        "max_resolution",
        "network_dim",
        "conv_dim",
        "warmup_ratio",
        "locon",
    )
    files = [
        gui(LoRA_type=kind, lr_scheduler="cosine_with_restarts", enable_bucket=True, **dict.fromkeys(names, value))
        for kind in ("LyCORIS/LoKr", "Standard", value)
    ]
    nested = {"subsets": [{"a": value}], "x": {"args": {"network_args": {"conv_dim": value}}}}
    files += [import_source(source_of(nested, toml=True))]
    files += [gui(lr_scheduler="cosine_with_restarts", lr_scheduler_num_cycles="", epoch=value)]
    for found in files:
        report = found.report()
        json.dumps(report)
        keys = [said["key"] for name in ("used", "not_supported", "ignored", "unknown") for said in report[name]]
        assert keys and len(keys) == len(set(keys)), "every key in exactly one list"
        assert all(problem.strip().endswith(".") and "Traceback" not in problem for problem in found.problems())
        found.config()
