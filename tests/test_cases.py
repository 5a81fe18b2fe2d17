"""Users' files that were once refused, misread or silently ignored: each as it is read now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lib_lora.cli import main
from lib_lora.kohya.importing import Imported, import_file

CASES = Path(__file__).parent / "data" / "cases"
SMALL = ("--resolution", "64", "--min-bucket-reso", "64", "--max-bucket-reso", "128", "--preview-steps", "0",
         "--mixed-precision", "no", "--steps", "2", "--rank", "2", "--alpha", "1")  # fmt: skip


def imported(case: str) -> Imported:
    return import_file(CASES / case)


def keys(found: Imported) -> tuple[set[str], set[str]]:
    return {said.key for said in found.not_supported}, {said.key for said in found.unknown}


def trained(checkpoint: Path, out: Path, *arguments: str, sizes: Sequence[str] = SMALL) -> int:
    return main(["train", "--checkpoint", str(checkpoint), "--out", str(out), "--name", "x", *sizes, *arguments])


def metadata(lora: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["inspect", str(lora), "--json"]) == 0
    found: dict[str, str] = json.loads(capsys.readouterr().out)["metadata"]
    return found


@pytest.mark.parametrize(
    ("case", "values"),
    [
        ("cfg-v25-flow-keys/v25.json", {"rank": 8, "alpha": 4.0, "unet_lr": 1e-4, "epochs": 2, "steps": 0}),
        ("cfg-use-wandb/v23.json", {"rank": 8, "epochs": 2, "lr_warmup_steps": 0.1, "lr_scheduler": "cosine"}),
        ("cfg-train-on-input/loha.json", {"adapter_type": "loha"}),
        ("cfg-train-on-input/locon.json", {}),
        ("cfg-lora-scripts/aki.toml", {"max_token_length": "225", "resolution": 1024, "epochs": 2, "caption_extension": ".caption"}),
        ("cfg-lokr-full-dim/lokr.toml", {"adapter_type": "lokr", "full_matrix": True, "factor": 6}),
    ],
)  # fmt: skip
def test_a_file_that_asks_for_nothing_else_is_taken_whole(case: str, values: dict[str, object]) -> None:
    found = imported(case)
    assert keys(found) == (set(), set()) and found.problems() == []
    flat = found.config().to_flat()
    assert {name: flat[name] for name in values} == values


def test_one_name_of_ours_does_not_make_a_file_ours() -> None:
    found = imported("cfg-foreign-key-form/epochs.toml")
    assert keys(found) == (set(), {"training.epochs"})
    flat = found.config().to_flat()
    assert (flat["resolution"], flat["alpha"], flat["enable_bucket"], flat["caption_extension"], flat["steps"]) == (
        512, 1.0, False, ".caption", 1600,
    )  # fmt: skip


def test_an_argument_wins_over_a_value_that_is_refused(
    mini_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(CASES / "cfg-argument-does-not-win" / "tok.toml")
    data = ("--data", str(photos), "--trigger", "zxq", "--config", config, "--max-token-length", "225")
    assert trained(mini_checkpoint, tmp_path / "out", *data) == 0
    assert metadata(tmp_path / "out" / "x.safetensors", capsys)["ss_max_token_length"] == "225"


def test_an_empty_caption_file_is_called_empty(mini_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained(mini_checkpoint, tmp_path / "out", "--data", str(CASES / "caption-empty-file" / "set")) == 2
    assert "'p.txt' is empty" in capsys.readouterr().err


def test_lines_of_a_caption_that_are_not_read_are_told(
    mini_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(CASES / "caption-lines-not-read" / "set"), "--trigger", "zxq")
    assert trained(mini_checkpoint, tmp_path / "out", *data) == 0
    assert "p.txt" in capsys.readouterr().err
    told = metadata(tmp_path / "out" / "x.safetensors", capsys)
    assert set(json.loads(told["ss_tag_frequency"])["1_thing"]) == {"zxq", "1girl"}


def test_what_is_not_used_is_told_on_the_command_line(
    mini_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(mini_checkpoint, tmp_path / "out", "--data", str(CASES / "cli-notes-lost" / "set")) == 0
    told = capsys.readouterr().err
    assert ".gif are not used" in told and "folders without a number and images next to the numbered folders are not used" in told


def test_a_run_whose_every_loss_is_no_number_has_failed(
    mini_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_lora.training.step.compute_loss", lambda *_, **__: torch.tensor(float("nan"), requires_grad=True))
    code = trained(mini_checkpoint, tmp_path / "out", "--data", str(photos), "--trigger", "zxq")
    said = capsys.readouterr()
    assert code == 2 and "not a number" in said.err and said.out == ""
