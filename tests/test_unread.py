"""Options that no part of a run reads, from foreign files in real runs: a note, and the same tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.cli import main
from lib_lora.config.groups import TrainConfig, all_options, build_config, is_read
from lib_lora.config.options import Option
from lib_lora.events import Event, Note, Saved
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config

CASES = Path(__file__).parent / "data" / "cases"
OPTIONS = {opt.name: opt for opt in all_options()}
# values that would be noticed where they are read: far outside of their bounds, or no value that is understood
ODD_TEXTS = {"sample_prompts": "no such file.txt", "conv_block_dims": "4", "block_alphas": "x", "conv_block_alphas": "x", "mask_data": "no such folder",
             "init_word": "cat", "caption_separator": "", "keep_tokens_separator": ",", "lr_scheduler_type": "NoSuchClass",
             "lr_scheduler_args": ["x"], "base_weights_multiplier": ["strong"]}  # fmt: skip


def odd(opt: Option) -> Any:
    if opt.name in ODD_TEXTS:
        return ODD_TEXTS[opt.name]
    if opt.choices:
        return next(choice for choice in opt.choices if choice != opt.default)
    if opt.name == "lr_warmup_steps":  # of fewer than none nothing would be seen
        return 50
    return not opt.default if opt.type is bool else -77777


def run(config: TrainConfig, checkpoint: Path) -> tuple[list[Event], dict[str, torch.Tensor]]:
    out = Path(config.run.out)
    out.mkdir(exist_ok=True)
    events = list(train(config, StandaloneHost(checkpoint, out, full_precision=True), RunControl()))
    (saved,) = [event for event in events if isinstance(event, Saved)]
    return events, read(saved.path)[0]


@pytest.mark.parametrize(
    "flat",
    [
        {"enable_bucket": False, "lr_scheduler_type": "ConstantLR", "masked_loss": False, "text_encoder_lr": 0.0},
        {
            "cache_latents": False,
            "lr_scheduler": "piecewise_constant",
            "lr_scheduler_args": ["step_rules='1:2,0.5'"],
            "save_n_epoch_ratio": 1,
        },
    ],
    ids=["without buckets", "without kept latents"],
)
def test_what_is_declared_as_not_read_changes_nothing(
    flat: dict[str, Any], photos: Path, tmp_path: Path, mini_checkpoint: Path
) -> None:
    plain = small_config(photos, tmp_path / "a", steps=2, **flat)
    unread = [opt for opt in OPTIONS.values() if not is_read(plain, opt.name) and opt.name not in flat]
    assert len(unread) > 25
    strange = small_config(photos, tmp_path / "b", **{"steps": 2, **flat, **{opt.name: odd(opt) for opt in unread}})
    assert all(strange.value(opt) != plain.value(opt) for opt in unread)
    _, expected = run(plain, mini_checkpoint)
    events, found = run(strange, mini_checkpoint)
    assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in expected)
    told = " ".join(event.text for event in events if isinstance(event, Note))
    assert [opt.name for opt in unread if f"({opt.name})" not in told] == ["epochs"]


def test_every_option_with_a_condition_is_read_by_some_run() -> None:
    names = [name for name, opt in OPTIONS.items() if opt.declaration.read_if]
    assert len(names) > 40
    asking: dict[str, Any] = {
        "reg_data": ["x"], "masked_loss": True, "validation_split": 0.5, "shuffle_caption": True, "token_warmup_step": 1, "conv_dim": 4,
        "down_lr_weight": "cosine", "conv_block_dims": "4", "base_weights": ["x"], "adapter_type": "lokr", "embedding_vectors": 1, "loss_type": "huber",
        "huber_schedule": "constant", "noise_offset": 0.1, "multires_noise_iterations": 1, "ip_noise_gamma": 0.1, "save_every_n_epochs": 1,
        "save_every_n_steps": 1, "save_state": True, "sample_at_first": True,
    }  # fmt: skip
    schedules = ("polynomial", "inverse_sqrt", "warmup_stable_decay", "cosine")
    configs = [build_config({}), *(build_config({**asking, "lr_scheduler": name}) for name in schedules)]
    assert [name for name in names if not any(is_read(config, name) for config in configs)] == []


def command(case: str, name: str, checkpoint: Path, photos: Path, out: Path, *more: str) -> list[str]:
    file = CASES / case / name
    given = ["--config", str(file)] if file.suffix == ".toml" else []
    return ["train", *given, "--checkpoint", str(checkpoint), "--data", str(photos), "--out", str(out), "--name", "x", "--trigger", "zxq",
            "--resolution", "64", "--min-bucket-reso", "64", "--preview-steps", "0", "--mixed-precision", "no", "--steps", "1", *more]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "name", "told"),
    [
        ("cfg-sample-file-not-drawn", "gui.toml", "Sample prompts (sample_prompts): no effect, because no samples are generated"),
        (
            "cfg-kept-states-without-saving",
            "keep.toml",
            "(save_last_n_steps_state): no effect, because no state is saved by steps",
        ),
    ],
)
def test_files_of_others_train_and_say_what_has_no_effect(
    case: str, name: str, told: str, photos: Path, tmp_path: Path, mini_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(case, name, mini_checkpoint, photos, tmp_path / "out")) == 0
    assert told in capsys.readouterr().err and (tmp_path / "out" / "x.safetensors").is_file()


def test_a_setting_of_one_folder_refuses_the_training(
    photos: Path, tmp_path: Path, mini_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("ds-one-folder-setting", "dataset.toml", mini_checkpoint, photos, tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "datasets[0].subsets[1].flip_aug = True: All folders share this setting here" in line


def test_prompt_lines_of_sd_scripts_are_drawn(
    photos: Path, tmp_path: Path, mini_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = shutil.copy(CASES / "prompt-flags-of-sd-scripts" / "prompts.txt", tmp_path / "p.txt")
    more = ("--sample-every-n-steps", "1", "--sample-prompts", str(prompts))
    assert main(command("prompt-flags-of-sd-scripts", "prompts.txt", mini_checkpoint, photos, tmp_path / "out", *more)) == 0
    said = capsys.readouterr().err
    assert "generated 2 samples" in said and "Sample prompts (sample_prompts): --ss (line 1) has no effect" in said


def test_a_state_goes_on_under_other_values_of_what_is_not_read() -> None:
    from lib_lora.training.resume import _settings_problem

    saved = json.loads(json.dumps(build_config({"name": "x"}).to_flat()))
    assert _settings_problem(build_config({"huber_c": 0.5, "keep_tokens": 3}), saved) is None
    assert "huber_c" in str(_settings_problem(build_config({"huber_c": 0.5, "loss_type": "huber"}), saved))
