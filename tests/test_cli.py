"""The command line as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_lora.cli import main
from lib_lora.cli_options import add_options, config_from
from lib_lora.config.groups import TrainConfig, all_options
from lib_lora.errors import ConfigError
from lib_lora.files.lora_file import read


def parsed(*argv: str) -> TrainConfig:
    import argparse

    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser)
    return config_from(parser.parse_args(argv))


@pytest.mark.parametrize("flag", ["--rank", "--network_dim", "--network-dim"])
def test_our_names_and_kohyas(flag: str) -> None:
    assert parsed(flag, "5").adapter.rank == 5


def test_every_option_can_be_given() -> None:
    for opt in all_options():
        kohya = opt.declaration.kohya
        flat = kohya if kohya and "." not in kohya else opt.name  # those of network_args are given inside it
        for name in {opt.name, opt.name.replace("_", "-"), flat}:
            usual = "" if opt.default is None else str(opt.default)
            raw = {tuple: "dir", bool: "true", str: opt.choices[-1] if opt.choices else "x"}.get(opt.type, usual)
            value = parsed(f"--{name}", raw).value(opt)
            assert value == {tuple: ("dir",), bool: True, str: raw}.get(opt.type, opt.default)


def test_learning_rate_stands_in_for_rates_not_given() -> None:
    optimizer = parsed("--learning_rate", "1e-3", "--text_encoder_lr", "5e-4").optimizer
    assert (optimizer.unet_lr, optimizer.text_encoder_lr) == (1e-3, 5e-4)


def test_learning_rate_on_the_command_line_leaves_a_files_own_rates(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"unet_lr": 1e-5, "network_train_unet_only": True}))
    optimizer = parsed("--config", str(tmp_path / "c.json"), "--learning_rate", "1e-3").optimizer
    assert (optimizer.unet_lr, optimizer.text_encoder_lr) == (1e-5, 0.0)


def test_switches_and_lists() -> None:
    config = parsed("--overwrite", "--data", "a", "--data", "b", "--resolution", "256,256", "--enable_bucket", "false")
    assert (
        config.run.overwrite
        and config.data.data == ("a", "b")
        and config.data.resolution == 256
        and not config.data.enable_bucket
    )
    arguments = parsed("--optimizer_args", "weight_decay=0.1", "betas=0.9,0.99", "--rank", "3")
    assert arguments.optimizer.optimizer_args == ("weight_decay=0.1", "betas=0.9,0.99") and arguments.adapter.rank == 3


def test_config_files_ours_and_kohyas(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"rank": 3, "network_alpha": 2, "unet_lr": 1e-3, "caption_extension": ".txt"}))
    config = parsed("--config", str(path), "--alpha", "9")
    assert (config.adapter.rank, config.adapter.alpha, config.optimizer.unet_lr) == (3, 9.0, 1e-3)


def test_a_toml_of_sd_scripts_with_its_folders_and_names(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'train_data_dir = "/photos"\noutput_name = "cat"\n[net]\nnetwork_dim = 8\nnetwork_args = ["rank_dropout=0.1"]\n'
    )
    config = parsed(
        "--config_file", str(path), "--name", "dog", "--learning_rate", "1e-3", "--network_args", "module_dropout=0.2"
    )
    assert (config.data.data, config.run.name, config.adapter.rank, config.optimizer.unet_lr) == (("/photos",), "dog", 8, 1e-3)
    assert (config.adapter.rank_dropout, config.adapter.module_dropout) == (0.1, 0.2)


def test_network_args(tmp_path: Path) -> None:
    config = parsed("--network_args", "rank_dropout=0.1", "loraplus_lr_ratio=4", "--network-args", "down_lr_weight=1,1")
    assert (config.adapter.rank_dropout, config.optimizer.loraplus_lr_ratio, config.adapter.down_lr_weight) == (0.1, 4.0, "1,1")
    path = tmp_path / "c.json"
    path.write_text(
        json.dumps({"rank": 3, "network_args": ["rank_dropout=0.1", "module_dropout=0.1"], "network_args.block_dims": "1"})
    )
    config = parsed("--config", str(path), "--network_args", "rank_dropout=0.3")
    assert (config.adapter.rank_dropout, config.adapter.module_dropout, config.adapter.block_dims) == (0.3, 0.1, "1")
    with pytest.raises(ConfigError, match="LyCORIS"):
        parsed("--network_args", "train_norm=True")


def test_a_file_with_what_is_not_supported_is_refused_with_every_reason(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(
        json.dumps({"LoRA_type": "LyCORIS/BOFT", "debug_dataset": True, "new": 1, "xformers": "xformers", "v2": False})
    )
    with pytest.raises(ConfigError) as caught:
        parsed("--config", str(tmp_path / "c.json"))
    assert len(caught.value.problems) == 3


def test_train_inspect_and_exit_codes(
    photos: Path, mini_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["train", "--checkpoint", str(mini_checkpoint), "--data", str(photos), "--out", str(out), "--name", "blob",
            "--trigger", "ohwx", "--resolution", "64", "--min-bucket-reso", "64", "--network_dim", "2", "--max_train_steps", "2",
            "--preview-steps", "0", "--max_token_length", "150", "--clip_skip", "2"]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.out == f"{out / 'blob.safetensors'}\n" and "step 2/2" in said.err
    assert read(out / "blob.safetensors")[1]["ss_max_token_length"] == "150"
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "Name (name): 'blob' is taken; use 'blob-2', or turn on Overwrite (overwrite).\n"
    assert main(["inspect", str(out / "blob.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranks"] == [2]
    assert main(["truncate", str(out / "blob.safetensors"), "--rank", "1", "--out", str(out / "less.safetensors")]) == 2
    assert "was not trained to be cut down" in capsys.readouterr().err


def test_wrong_input_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--rank", "0", "--alpha", "x"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert main(["train"]) == 2
    assert "Checkpoint (checkpoint): is empty" in capsys.readouterr().err
    (tmp_path / "c.json").write_text("[1]")
    assert main(["train", "--config", str(tmp_path / "c.json")]) == 2
    assert main(["inspect", str(tmp_path / "missing.safetensors")]) == 2


def test_our_own_errors_are_exit_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import lib_lora.replay.data as room

    monkeypatch.setattr(room, "replay_data", lambda *_: 1 / 0)
    assert main(["replay-data", __file__]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "this is a bug" in said


def test_replay_commands_print_one_object(mini_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(__file__).parent / "data"
    assert main(["replay", str(data / "mini-recording.safetensors"), "--checkpoint", str(mini_checkpoint)]) == 0
    assert set(json.loads(capsys.readouterr().out)["replay"]) == {
        "loss_rel_err", "delta_cosine", "delta_cosine_min", "keys_missing", "keys_unexpected"}  # fmt: skip
    assert main(["replay-data", str(data / "kohya-data.json")]) == 0
    assert json.loads(capsys.readouterr().out)["replay_data"]["buckets_wrong"] == 0


def test_epochs_as_an_argument_win_over_steps_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("max_train_steps = 900\n")
    for flag in ("--epochs", "--max_train_epochs"):
        run = parsed("--config", str(path), flag, "3").run
        assert (run.epochs, run.steps) == (3, 0)
    run = parsed("--config", str(path), "--epochs", "3", "--steps", "7").run
    assert (run.epochs, run.steps) == (3, 7)


@pytest.mark.parametrize("more", [("--learning_rate", "1e-3"), ("--network_args", "rank_dropout=0.1")])
def test_arguments_do_not_change_how_a_file_is_read(more: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    settings = {"seed": 0, "lr_warmup_steps": 0.1, "lr_scheduler": "constant", "caption_extension": ".txt"}
    path.write_text(json.dumps(settings))
    alone, with_more = parsed("--config", str(path)), parsed("--config", str(path), *more)
    assert alone.optimizer.lr_warmup_steps == with_more.optimizer.lr_warmup_steps == 0.1
