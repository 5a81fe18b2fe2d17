"""Import of kohya's settings: one test per rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lib_lora.config.groups import build_config
from lib_lora.config.rules import schedule_fits_the_optimizer
from lib_lora.config.toml_reader import parse_toml
from lib_lora.kohya.files import source_of
from lib_lora.kohya.importing import Imported, import_source
from tests.test_kohya_table import KEYS

LISTS = ("used", "not_supported", "ignored", "unknown")


def gui(**settings: Any) -> Imported:
    """A JSON of kohya_ss."""
    return import_source(source_of(settings, toml=False))


def toml(text: str, **more: Any) -> Imported:
    """A TOML of sd-scripts."""
    return import_source(source_of(parse_toml(text), toml=True), **more)


def verdict(found: Imported, key: str) -> str:
    """The one list that `key` is in."""
    names = [name for name in LISTS for said in getattr(found, name) if said.key == key]
    assert len(names) == 1, (key, names)
    return names[0]


def why(found: Imported, key: str) -> str:
    return next(said.why for name in LISTS for said in getattr(found, name) if said.key == key)


def test_every_key_of_kohya_ss_is_in_exactly_one_list() -> None:
    for value in ("", False, 0, 1, "x", True, None, [], ["a=b"], {"a": 1}):
        found = gui(**{key: value for key in KEYS["kohya_ss"]})
        said = [said.key for name in LISTS for said in getattr(found, name)]
        assert sorted({key.split(".")[0] for key in said}) == sorted(KEYS["kohya_ss"]) and len(said) == len(set(said))
        assert not [said for said in found.unknown if said.key in KEYS["kohya_ss"]]
        found.config()


def test_every_option_of_sd_scripts_is_in_exactly_one_list() -> None:
    for value in ("", False, 0, 1, "x", True, [], ["a=b"]):
        found = import_source(source_of({key: value for key in KEYS["sd_scripts"]}, toml=True))
        said = [said.key for name in LISTS for said in getattr(found, name)]
        assert sorted(said) == sorted(KEYS["sd_scripts"]) and not found.unknown
        found.config()


def test_unknown_keys_are_told_with_the_nearest_name() -> None:
    found = gui(learning_rates=1, brand_new_thing=3)
    assert [said.key for said in found.unknown] == ["learning_rates", "brand_new_thing"]
    assert "did you mean 'learning_rate'?" in why(found, "learning_rates")


# the file of a well-known video, with the key names that the form had in 2023
BASIC: dict[str, Any] = {
    "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5", "v2": False, "v_parameterization": False,
    "logging_dir": "C:/log", "train_data_dir": "C:/img", "reg_data_dir": "", "output_dir": "C:/model", "max_resolution": "512,512",
    "learning_rate": "0.0001", "lr_scheduler": "constant", "lr_warmup": "0", "train_batch_size": 2, "epoch": "1",
    "save_every_n_epochs": "1", "mixed_precision": "bf16", "save_precision": "bf16", "seed": "1234", "num_cpu_threads_per_process": 2,
    "cache_latents": True, "caption_extension": ".txt", "enable_bucket": False, "gradient_checkpointing": False, "full_fp16": False,
    "no_token_padding": False, "stop_text_encoder_training": 0, "use_8bit_adam": True, "xformers": True,
    "save_model_as": "safetensors", "shuffle_caption": False, "save_state": False, "resume": "", "prior_loss_weight": 1.0,
    "text_encoder_lr": "5e-5", "unet_lr": "0.0001", "network_dim": 128, "lora_network_weights": "", "color_aug": False,
    "flip_aug": False, "clip_skip": 2, "gradient_accumulation_steps": 1.0, "mem_eff_attn": False, "output_name": "Addams",
    "model_list": "runwayml/stable-diffusion-v1-5", "max_token_length": "75", "max_train_epochs": "",
    "max_data_loader_n_workers": "1", "network_alpha": 128, "training_comment": "", "keep_tokens": "0",
    "lr_scheduler_num_cycles": "", "lr_scheduler_power": "",
}  # fmt: skip


def test_an_old_form_file_is_taken_whole() -> None:
    found = gui(**BASIC)
    assert sum(len(getattr(found, name)) for name in LISTS) == len(BASIC) == 51
    assert not found.not_supported and not found.unknown
    config = found.config()
    assert (config.adapter.rank, config.adapter.alpha, config.optimizer.optimizer) == (128, 128.0, "AdamW8bit")
    assert (config.optimizer.unet_lr, config.optimizer.text_encoder_lr) == (1e-4, 5e-5)
    assert (config.text.clip_skip, config.text.max_token_length, config.text.keep_tokens) == (2, "75", 0)
    assert (config.run.epochs, config.run.steps, config.run.seed, config.run.save_every_n_epochs) == (1, 0, 1234, 1)
    assert (config.data.resolution, config.data.enable_bucket, config.data.batch_size) == (512, False, 2)
    assert (config.precision.mixed_precision, config.precision.gradient_checkpointing) == ("bf16", "off")
    for key in ("train_data_dir", "output_dir", "output_name", "pretrained_model_name_or_path", "logging_dir", "resume"):
        assert verdict(found, key) == "ignored"
    assert config.data.data == () and config.run.name == "" and config.run.out == "" and config.run.checkpoint == ""
    assert not {"data", "name", "out", "checkpoint", "resume", "network_weights"} & set(found.report()["config"])


def test_names_and_paths_are_taken_where_they_are_asked_for() -> None:
    flat = import_source(source_of(BASIC, toml=False), keep_names=True).flat
    assert (flat["data"], flat["name"], flat["out"]) == (("C:/img",), "Addams", "C:/model")


@pytest.mark.parametrize(
    ("settings", "unet", "text"),
    [
        ({"learning_rate": "1e-3"}, 1e-3, 1e-3),
        ({"learning_rate": 1e-3, "unet_lr": "2e-4"}, 2e-4, 1e-3),
        ({"learning_rate": 1e-3, "unet_lr": 2e-4, "text_encoder_lr": 0}, 2e-4, 0.0),
        ({"learning_rate": 1e-3, "unet_lr": 2e-4, "text_encoder_lr": ""}, 2e-4, 0.0),
        ({"learning_rate": 1e-3, "unet_lr": "0", "text_encoder_lr": 3e-5}, 0.0, 3e-5),
        ({"learning_rate": 1e-3, "unet_lr": 0, "text_encoder_lr": 0.0}, 1e-3, 1e-3),
        ({"unet_lr": 1e-4, "text_encoder_lr": [2e-5, 3e-5]}, 1e-4, 2e-5),
        ({"learning_rate": 1e-3, "network_train_unet_only": True}, 1e-3, 0.0),
        ({"learning_rate": 1e-3, "network_train_text_encoder_only": True}, 0.0, 1e-3),
    ],
)
def test_rates_of_the_form(settings: dict[str, Any], unet: float, text: float) -> None:
    optimizer = gui(**settings).config().optimizer
    assert (optimizer.unet_lr, optimizer.text_encoder_lr) == (unet, text)


@pytest.mark.parametrize(
    ("text", "unet", "te"),
    [
        ("network_dim = 4", 2e-6, 2e-6),
        ("learning_rate = 1e-3\ntext_encoder_lr = 0", 1e-3, 0.0),
        ("unet_lr = 0.0\ntext_encoder_lr = 0.0\nlearning_rate = 1e-3", 0.0, 0.0),
        ("unet_lr = 1e-4", 1e-4, 2e-6),
    ],
)
def test_rates_of_sd_scripts(text: str, unet: float, te: float) -> None:
    optimizer = toml(text).config().optimizer
    assert (optimizer.unet_lr, optimizer.text_encoder_lr) == (unet, te)


@pytest.mark.parametrize(
    ("settings", "epochs", "steps"),
    [
        ({"epoch": "3", "max_train_epochs": ""}, 3, 0),
        ({"epoch": 3, "max_train_epochs": "7"}, 7, 0),
        ({"epoch": 3, "max_train_steps": "1600"}, 10, 1600),
        ({"epoch": 3, "max_train_steps": ""}, 3, 0),
        ({"epoch": 3, "max_train_steps": 0, "max_train_epochs": 0}, 3, 0),
        ({"epoch": 3, "max_train_steps": 1600, "max_train_epochs": 5}, 5, 0),
        ({"max_train_epochs": 5, "epoch": 3, "max_train_steps": 1600}, 5, 0),
    ],
)
def test_steps_follow_what_was_meant(settings: dict[str, Any], epochs: int, steps: int) -> None:
    run = gui(**settings).config().run
    assert (run.epochs, run.steps) == (epochs, steps)


def test_the_forms_1600_steps_are_told_about() -> None:
    assert "1600" in why(gui(epoch=1), "epoch")


@pytest.mark.parametrize(
    ("settings", "warmup"),
    [
        ({"lr_warmup": "10", "lr_scheduler": "cosine"}, 0.1),
        ({"lr_warmup": 7, "lr_scheduler": "cosine", "lr_warmup_steps": 0}, 0.07),
        ({"lr_warmup": 10, "lr_scheduler": "cosine", "lr_warmup_steps": "50"}, 50.0),
        ({"lr_warmup": 100, "lr_scheduler": "cosine"}, 0.999999),
        ({"lr_warmup": 10, "lr_scheduler": "constant"}, 0.0),
        ({"lr_warmup_steps": 10, "lr_scheduler": "constant"}, 0.0),
    ],
)
def test_warm_up_in_percent_and_in_steps(settings: dict[str, Any], warmup: float) -> None:
    assert gui(**settings).config().optimizer.lr_warmup_steps == warmup


def test_warm_up_of_sd_scripts_is_a_share_when_it_is_a_float() -> None:
    assert toml("lr_warmup_steps = 0.1").config().optimizer.lr_warmup_steps == 0.1
    assert toml("lr_warmup_steps = 1").config().optimizer.lr_warmup_steps == 1
    assert toml("lr_warmup_steps = 1.0").config().optimizer.lr_warmup_steps == 0.999999
    assert toml("lr_decay_steps = 0.2").config().optimizer.lr_decay_steps == 0.2
    assert toml("lr_decay_steps = 1.0").config().optimizer.lr_decay_steps == 0.999999


@pytest.mark.parametrize(
    ("settings", "stop"),
    [
        ({"stop_text_encoder_training": 50}, 0.5),
        ({"stop_text_encoder_training_pct": "30"}, 0.3),
        ({"stop_text_encoder_training": 0}, 0.0),
        ({"stop_text_encoder_training": 100}, 0.0),
        ({"stop_text_encoder_training": 20, "stop_text_encoder_training_pct": 40}, 0.2),
        ({"stop_text_encoder_training": 0, "stop_text_encoder_training_pct": 40}, 0.4),
    ],
)
def test_stopping_the_text_encoder_in_percent(settings: dict[str, Any], stop: float) -> None:
    assert gui(**settings).config().optimizer.stop_text_encoder_training == stop


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"use_8bit_adam": True}, "AdamW8bit"),
        ({"use_8bit_adam": False}, "AdamW"),
        ({"use_8bit_adam": True, "optimizer": "Lion"}, "Lion"),
        ({"use_lion_optimizer": True}, "Lion"),
        ({"optimizer": "Prodigy"}, "Prodigy"),
        ({"optimizer_type": "DAdaptAdam"}, "DAdaptAdam"),
        ({"optimizer": ""}, "AdamW"),
    ],
)
def test_optimizers_old_and_new(settings: dict[str, Any], name: str) -> None:
    assert gui(**settings).config().optimizer.optimizer == name


@pytest.mark.parametrize(
    ("value", "sides"),
    [
        ("512,512", (512, 0)),
        ("512", (512, 0)),
        ("512,768", (512, 768)),
        ("768, 512", (768, 512)),
        (640, (640, 0)),
        ([512, 640], (512, 640)),
    ],
)
def test_resolution(value: Any, sides: tuple[int, int]) -> None:
    data = gui(max_resolution=value).config().data
    assert (data.resolution, data.resolution_height) == sides


def test_illegal_values_are_not_supported_with_the_options_sentence() -> None:
    found = gui(network_dim="many", max_resolution="512,512,512", train_batch_size=0, lr_scheduler="one_cycle")
    assert [verdict(found, key) for key in ("network_dim", "max_resolution", "train_batch_size", "lr_scheduler")] == [
        "not_supported"
    ] * 4
    assert why(found, "network_dim") == "Rank (rank): got 'many', must be a whole number from 1 to 1024."
    assert found.config() == build_config({})


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("Original", {"noise_offset": 0.05, "adaptive_noise_scale": 0.01, "multires_noise_iterations": 0, "multires_noise_discount": 0.3}),
        ("Multires", {"noise_offset": 0.0, "adaptive_noise_scale": 0.0, "multires_noise_iterations": 6, "multires_noise_discount": 0.1}),
        ("", {"noise_offset": 0.05, "adaptive_noise_scale": 0.01, "multires_noise_iterations": 6, "multires_noise_discount": 0.1}),
    ],
)  # fmt: skip
def test_the_kind_of_noise_decides(name: str, chosen: dict[str, Any]) -> None:
    found = gui(noise_offset_type=name, noise_offset="0.05", adaptive_noise_scale=0.01, multires_noise_iterations=6,
                multires_noise_discount="0.1")  # fmt: skip
    flat = found.config().to_flat()
    assert {key: flat[key] for key in chosen} == chosen
    random = gui(noise_offset_type=name, noise_offset_random_strength=True)
    assert random.flat.get("noise_offset_random_strength", False) == (name != "Multires")


def test_an_unknown_kind_of_noise_is_told() -> None:
    assert verdict(gui(noise_offset_type="Perlin"), "noise_offset_type") == "not_supported"


def test_repeats_for_folders_without_a_number() -> None:
    assert toml("dataset_repeats = 4").flat["repeats"] == 4


def test_what_the_reasons_say_of_rates() -> None:
    found = gui(learning_rate=1e-3, unet_lr=1e-4, text_encoder_lr=0)
    assert "Overridden by both learning rates" in why(found, "learning_rate") and "unet_lr = 0.0001" in why(found, "unet_lr")
    assert "not trained" in why(found, "text_encoder_lr")
    assert "text_encoder_lr, which are not given" in why(gui(learning_rate=1e-3, unet_lr=1e-4), "learning_rate")
    assert verdict(gui(network_train_unet_only=False), "network_train_unet_only") == "ignored"
    assert verdict(gui(learning_rate="fast"), "learning_rate") == "not_supported"


def test_arguments_that_are_none() -> None:
    for key in ("network_args", "additional_parameters"):
        assert verdict(gui(**{key: ""}), key) == "ignored" and verdict(gui(**{key: 5}), key) == "not_supported"


@pytest.mark.parametrize(
    ("key", "option", "value"),
    [("max_grad_norm", "max_grad_norm", 0), ("prior_loss_weight", "prior_loss_weight", 0), ("seed", "seed", 0)],
)
def test_zeros_that_kohyas_form_drops_are_meant(key: str, option: str, value: Any) -> None:
    found = gui(**{key: value})
    assert found.flat[option] == 0 and "drops a 0" in why(found, key)


def test_zeros_that_stand_for_the_default() -> None:
    flat = gui(clip_skip="0", vae_batch_size=0, max_timestep=0, network_dim=32, network_alpha=0, lr_scheduler_num_cycles=0).flat
    assert [flat[name] for name in ("clip_skip", "vae_batch_size", "max_timestep", "alpha", "lr_scheduler_num_cycles")] == [
        1, 1, 1000, 32.0, 1]  # fmt: skip


def test_zeros_that_mean_off() -> None:
    zeros = ("scale_weight_norms", "min_snr_gamma", "save_every_n_steps", "sample_every_n_epochs", "network_dropout", "keep_tokens",
             "caption_dropout_rate", "ip_noise_gamma", "v_pred_like_loss", "rank_dropout", "save_last_n_epochs")  # fmt: skip
    found = gui(**{name: 0 for name in zeros})
    assert all(found.flat[name] == 0 for name in zeros) and not found.not_supported


def test_network_args_as_list_text_and_table() -> None:
    for value in (
        ["rank_dropout=0.1", "loraplus_lr_ratio=4"],
        'rank_dropout="0.1" loraplus_lr_ratio=4',
        {"rank_dropout": 0.1, "loraplus_lr_ratio": 4},
    ):
        found = gui(network_args=value)
        assert (found.flat["rank_dropout"], found.flat["loraplus_lr_ratio"]) == (0.1, 4.0)
        assert verdict(found, "network_args") == "used"


def test_network_args_that_are_not_supported_are_told_and_the_others_used() -> None:
    found = gui(network_args=["train_norm=True", "module_dropout=0.2", "brand_new=1"])
    assert verdict(found, "network_args") == "not_supported" and found.flat["module_dropout"] == 0.2
    assert "train_norm: LyCORIS' own" in why(found, "network_args") and "brand_new" in why(found, "network_args")


def test_arguments_in_the_forms_free_text() -> None:
    found = gui(
        additional_parameters='--zero_terminal_snr --keep_tokens_separator="|||" --network_args "rank_dropout=0.1" --network-dropout 0.2',
        network_dropout=0,
    )
    assert found.flat["zero_terminal_snr"] and found.flat["keep_tokens_separator"] == "|||"
    assert (found.flat["rank_dropout"], found.flat["network_dropout"]) == (0.1, 0.2)
    assert verdict(found, "network_dropout") == "ignored"


def test_kinds_of_lora() -> None:
    standard = gui(LoRA_type="Standard", conv_dim=8, conv_alpha=4, factor=4, train_norm=True, down_lr_weight="1,1,1")
    assert [verdict(standard, key) for key in ("LoRA_type", "conv_dim", "factor", "train_norm", "down_lr_weight")] == [
        "used", "ignored", "ignored", "ignored", "used"]  # fmt: skip
    locon = gui(LoRA_type="Kohya LoCon", conv_dim=8, conv_alpha=0)
    assert [verdict(locon, key) for key in ("LoRA_type", "conv_dim", "conv_alpha")] == [
        "used",
        "used",
        "used",
    ]
    assert (locon.flat["conv_dim"], locon.flat["conv_alpha"]) == (8, 0)
    assert "conv_dim" not in standard.flat and gui(conv_dim=8).flat["conv_dim"] == 8
    assert verdict(toml('network_module = "networks.oft"'), "network_module") == "not_supported"


@pytest.mark.parametrize(
    ("kind", "fields", "wanted"),
    [
        ("LyCORIS/LoCon", {}, "lora"),
        ("LyCORIS/LoCon", {"dora_wd": True}, "dora"),
        ("LyCORIS/LoHa", {"factor": 4}, "loha"),
        ("LyCORIS/LoKr", {"factor": 4, "decompose_both": True}, "lokr"),
        ("LyCORIS/Diag-OFT", {}, "diag-oft"),
        ("LyCORIS/iA3", {}, "ia3"),
        ("LyCORIS/GLoRA", {}, "glora"),
        ("Kohya DyLoRA", {"unit": 2}, "lora"),
        ("Standard", {"dora_wd": True, "factor": 4}, "lora"),
    ],
    ids=str,
)
def test_types_of_the_form(kind: str, fields: dict[str, object], wanted: str) -> None:
    found = gui(LoRA_type=kind, conv_dim=8, conv_alpha=2, LyCORIS_preset="full", **fields)
    assert found.not_supported == [] and found.flat["adapter_type"] == wanted
    assert found.flat.get("unit") == fields.get("unit")
    assert (found.flat.get("factor"), found.flat.get("decompose_both")) == ((4, True) if wanted == "lokr" else (None, None))
    assert found.flat.get("conv_dim") == (None if kind in ("Standard", "LyCORIS/iA3", "LyCORIS/GLoRA") else 8)


LYCORIS = 'network_module = "lycoris.kohya"\nnetwork_dim = 6\nnetwork_alpha = 2\nnetwork_args = '


def test_types_of_a_toml() -> None:
    dora = toml(LYCORIS + '["algo=locon", "dora_wd=True", "wd_on_output=False"]')
    assert dora.not_supported == [] and dora.flat["adapter_type"] == "dora"
    assert (dora.flat["conv_dim"], dora.flat["conv_alpha"]) == (6, 2.0), "LyCORIS takes the ordinary rank for convolutions"
    loha = toml(LYCORIS + '["algo=loha", "preset=attn-mlp", "conv_dim=3"]')
    assert (loha.flat["adapter_type"], loha.flat["conv_dim"]) == ("loha", 0) and loha.not_supported == []
    lokr = toml(LYCORIS + '["algo=lokr", "conv_dim=3", "conv_alpha=1", "factor=8", "full_matrix=True"]')
    assert [lokr.flat[key] for key in ("adapter_type", "conv_dim", "conv_alpha", "factor", "full_matrix")] == [
        "lokr", 3, 1.0, 8, True]  # fmt: skip
    dylora = toml('network_module = "networks.dylora"\nnetwork_dim = 8\nnetwork_args = ["unit=4"]')
    assert dylora.not_supported == [] and (dylora.flat["unit"], dylora.flat["rank"]) == (4, 8)
    assert toml('network_module = "networks.dylora"').flat["unit"] == 1, "kohya's default"
    assert "unit" not in toml('network_module = "networks.lora"\nnetwork_args = ["unit=4"]').flat
    oft = toml(LYCORIS + '["algo=diag-oft", "conv_dim=3", "constraint=0", "rescaled=False"]')
    assert oft.not_supported == [] and (oft.flat["adapter_type"], oft.flat["conv_dim"]) == ("diag-oft", 3)
    for algo, preset in (("ia3", "ia3"), ("glora", "full"), ("ia3", "full")):
        found = toml(LYCORIS + f'["algo={algo}", "preset={preset}", "conv_dim=3"]')
        assert found.not_supported == [] and found.flat["adapter_type"] == algo and "conv_dim" not in found.flat
    assert verdict(toml(LYCORIS + '["algo=loha", "preset=ia3"]'), "network_args") == "not_supported"
    assert toml(LYCORIS + '["dropout=0"]').flat["adapter_type"] == "lora", "LyCORIS' default"


@pytest.mark.parametrize(
    "argument", ["algo=full", "algo=boft", "preset=attn-only", "wd_on_output=True", "use_tucker=True", "dora_wd=True"]
)
def test_what_of_lycoris_is_not_trained(argument: str) -> None:
    algo = "" if argument.startswith("algo") else '"algo=loha", '
    found = toml(LYCORIS + f'[{algo}"{argument}"]')
    assert verdict(found, "network_args") == "not_supported"
    plain = toml(f'network_args = ["{argument}"]')
    assert "adapter_type" not in plain.flat or plain.flat["adapter_type"] == "lora", "kohya's own LoRA does not read it"


def test_other_models() -> None:
    off = gui(flux1_checkbox=False, guidance_scale=3.5, sdxl=False, sdxl_cache_text_encoder_outputs=False)
    assert {verdict(off, key) for key in ("flux1_checkbox", "guidance_scale", "sdxl")} == {"ignored"}
    on = gui(flux1_checkbox=True, guidance_scale=3.5, sdxl=True)
    assert {verdict(on, key) for key in ("flux1_checkbox", "guidance_scale")} == {"not_supported"}
    assert verdict(on, "sdxl") == "ignored"  # the checkpoint says it
    assert verdict(gui(guidance_scale=3.5), "guidance_scale") == "ignored"  # an absent switch is off


def test_machine_settings_and_uploads() -> None:
    found = gui(
        xformers="sdpa", num_processes=2, save_model_as="ckpt", huggingface_token="secret", wandb_api_key="secret", fp8_base=True
    )
    assert [verdict(found, key) for key in ("xformers", "num_processes", "save_model_as", "fp8_base")] == [
        "ignored", "not_supported", "not_supported", "not_supported"]  # fmt: skip
    assert "secret" not in json.dumps(found.report())


def test_fp8_is_named() -> None:
    assert "never cast" in why(gui(mixed_precision="fp8"), "mixed_precision")


def test_kept_latents_follow_the_pictures() -> None:
    assert gui(flip_aug=True).config().data.cache_latents
    assert not gui(random_crop=True).config().data.cache_latents
    assert not toml("color_aug = true").config().data.cache_latents
    assert gui(random_crop=True, cache_latents=True).config().data.cache_latents  # told by a rule, not silently changed


def test_switches_however_they_are_spelled() -> None:
    for value in (True, "True", "true", 1):
        found = gui(flip_aug=value, gradient_checkpointing=value)
        assert found.flat["flip_aug"] is True and found.flat["gradient_checkpointing"] == "on"
    for value in (False, "False", 0):
        found = gui(flip_aug=value, gradient_checkpointing=value)
        assert found.flat["flip_aug"] is False and found.flat["gradient_checkpointing"] == "off"


def test_optimizer_arguments_as_list_and_as_text() -> None:
    for value in ("weight_decay=0.1 betas=(0.9, 0.99)", ["weight_decay=0.1", "betas=(0.9, 0.99)"]):
        assert gui(optimizer_args=value).flat["optimizer_args"] == ("weight_decay=0.1", "betas=(0.9, 0.99)")
    assert gui(lr_scheduler_args="step_rules=1:10,0.1").flat["lr_scheduler_args"] == ("step_rules=1:10,0.1",)


@pytest.mark.parametrize(
    ("key", "value", "asking"),
    [
        ("bucket_reso_steps", 1, "enable_bucket = true"),
        ("min_bucket_reso", 0, "enable_bucket = true"),
        ("huber_c", 0, 'loss_type = "huber"'),
        ("keep_tokens", 999, "shuffle_caption = true"),
        ("save_last_n_steps", -1, "save_every_n_steps = 5"),
        ("lr_scheduler_num_cycles", 500, 'lr_scheduler = "cosine_with_restarts"'),
    ],
)
def test_a_number_out_of_bounds_is_refused_where_it_would_be_read(key: str, value: int, asking: str) -> None:
    unread, read = toml(f"{key} = {value}"), toml(f"{key} = {value}\n{asking}")
    assert unread.problems() == [] and verdict(unread, key) == "ignored"
    assert "No effect, because" in why(unread, key) or "has no effect" in why(unread, key)
    assert key not in unread.flat and unread.config()
    assert verdict(read, key) == "not_supported" and "must be" in why(read, key) and read.config()


def test_sample_prompts_are_text_in_the_form_and_a_path_in_a_toml() -> None:
    assert gui(sample_prompts="a cat --n ugly\na dog").flat["sample_prompts"].startswith("a cat")
    found = toml('sample_prompts = "C:/out/sample/prompt.txt"')
    assert verdict(found, "sample_prompts") == "ignored" and "sample_prompts" not in found.flat


def test_captions_without_an_ending() -> None:
    assert gui(caption_extension="").flat["caption_extension"] == ".caption"


def test_absent_keys_of_a_toml_have_sd_scripts_defaults() -> None:
    config = toml('optimizer_type = "Lion"').config()
    assert (config.adapter.rank, config.adapter.alpha, config.run.steps, config.text.caption_extension) == (
        4,
        1.0,
        1600,
        ".caption",
    )
    assert (config.precision.mixed_precision, config.precision.save_precision, config.precision.gradient_checkpointing) == (
        "no", "float", "off")  # fmt: skip
    assert not config.data.enable_bucket and config.data.cache_latents
    assert toml("max_train_epochs = 3").config().run.steps == 0


def test_a_toml_in_sections() -> None:
    found = toml(
        "[network]\nnetwork_dim = 8\nnetwork_args = ['rank_dropout=0.1']\n[optimizer]\nlearning_rate = 1e-3\n[late]\nnetwork_dim = 16"
    )
    assert (found.flat["rank"], found.flat["unet_lr"], found.flat["rank_dropout"]) == (16, 1e-3, 0.1)
    assert verdict(found, "network.network_dim") == "ignored" and verdict(found, "late.network_dim") == "used"


def test_epoch_says_nothing_in_a_toml() -> None:
    assert verdict(toml("epoch = 3\nmax_train_steps = 7"), "epoch") == "ignored"


def test_arguments_in_quotes() -> None:
    for name in ("optimizer_args", "lr_scheduler_args"):
        found = gui(**{name: '"weight_decay=0.1" "betas=0.9,0.99"'})
        assert found.flat[name] == ("weight_decay=0.1", "betas=0.9,0.99")
        assert verdict(gui(**{name: "weight_decay 0.1"}), name) == "not_supported"


def test_adafactor_has_its_own_schedule() -> None:
    for arguments in ("", '"scale_parameter=True"', "relative_step=True warmup_init=True"):
        found = gui(optimizer="AdaFactor", optimizer_args=arguments, lr_scheduler="constant_with_warmup", lr_warmup=10)
        assert found.flat["lr_scheduler"] == "adafactor" and not found.flat.get("lr_warmup_steps")
        assert "its own learning rate" in why(found, "lr_scheduler") and verdict(found, "lr_warmup") == "ignored"
        assert schedule_fits_the_optimizer(found.config()) is None
    assert toml('optimizer_type = "AdaFactor"').flat["lr_scheduler"] == "adafactor"
    fixed = toml('optimizer_type = "adafactor"\noptimizer_args = ["relative_step=False"]\nlr_scheduler = "cosine"')
    assert fixed.flat["lr_scheduler"] == "cosine"
