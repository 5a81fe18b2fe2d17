"""Damaged LoRA files are reported by name and layer, for every option that reads one, and by inspect."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_lora.cli import main
from lib_lora.config.groups import build_config
from lib_lora.errors import LoraFileError
from lib_lora.model.tensor_rules import alpha_of
from lib_lora.output.inspect import describe
from lib_lora.output.truncate import truncate
from lib_lora.settle import settle
from lib_lora.training.continue_settings import continue_settings
from lib_lora.training.continued_files import weights_problems
from tests.malformed import TYPES

CASES = Path(__file__).parent / "data" / "cases"
LAYER, OTHER = "lora_unet_down_blocks_0_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1"
NAN = torch.tensor(math.nan)


def layer(kind: str, name: str = LAYER) -> dict[str, torch.Tensor]:
    return {f"{name}.{end}": torch.ones(shape) for end, shape in TYPES[kind].items()} | {f"{name}.alpha": torch.tensor(2.0)}


DAMAGE: dict[str, tuple[str, dict[str, torch.Tensor], str]] = {
    "alpha of two numbers": ("lora", {"alpha": torch.ones(2)}, "has 2 numbers in alpha, must be one"),
    "an empty alpha": ("loha", {"alpha": torch.ones(0)}, "has 0 numbers in alpha, must be one"),
    "an alpha that is true": ("lokr", {"alpha": torch.tensor(True)}, "has bool in alpha, must be a number"),
    "whole numbers": ("lora", {"lora_up.weight": torch.ones(5, 2, dtype=torch.int8)}, "in int8, must be floating"),
    "an empty half": ("lora", {"lora_up.weight": torch.ones(5, 0)}, "has an empty lora_up.weight with the shape 5×0"),
    "one dimension": ("lora", {"lora_down.weight": torch.ones(6)}, "has lora_down.weight with the shape 6, must have 2 or 4 dimensions"),
    "three dimensions": ("locon", {"lora_down.weight": torch.ones(2, 6, 3)}, "with the shape 2×6×3, must have 2 or 4 dimensions"),
    "ranks that differ": ("lora", {"lora_up.weight": torch.ones(5, 3)}, "with shapes that do not match: lora_down.weight 2×6, lora_up.weight 5×3"),
    "an up with a kernel": ("locon", {"lora_up.weight": torch.ones(5, 2, 3, 3)}, "with shapes that do not match"),
    "halves of a LoHa": ("loha", {"hada_w2_b": torch.ones(2, 7)}, "with shapes that do not match: hada_w1_a 5×2, hada_w1_b 2×6, hada_w2_a"),
    "factors of a LoKr": ("lokr", {"lokr_w2_b": torch.ones(3, 3)}, "with shapes that do not match: lokr_w2_a 5×2, lokr_w2_b 3×3"),
    "a LoKr of three dimensions": ("lokr whole", {"lokr_w2": torch.ones(5, 3, 3)}, "must have 2 or 4 dimensions"),
    "a magnitude of a whole weight": ("dora", {"dora_scale": torch.ones(5, 6)}, "has dora_scale with the shape 5×6, must be one number for"),
    "a magnitude of another layer": ("dora", {"dora_scale": torch.ones(1, 9)}, "has dora_scale with the shape 1×9"),
    "an (IA)³ that is a matrix": ("ia3", {"weight": torch.ones(5, 6)}, "has weight with the shape 5×6, must be a single row"),
    "an (IA)³ over two axes": ("ia3", {"on_input": torch.ones(2)}, "has 2 numbers in on_input, must be one"),
    "blocks that are no squares": ("oft", {"oft_blocks": torch.ones(2, 3, 4)}, "has oft_blocks with the shape 2×3×4, must be square"),
    "factors of a GLoRA": ("glora", {"b2.weight": torch.ones(7, 3)}, "with shapes that do not match: b1.weight 2×6, b2.weight 7×3"),
    "a difference without a side": ("full", {"diff": torch.tensor(1.0)}, "has diff with the shape scalar, must have 1 or 2"),
    "a product without end": ("lora", {"lora_down.weight": torch.ones(20_000, 1), "lora_up.weight": torch.ones(1, 20_000)}, "at most"),
}  # fmt: skip
UNFIT = {
    "a number that is none": ("lora", {"lora_up.weight": torch.full((5, 2), math.nan)}),
    "an infinite number": ("loha", {"hada_w1_a": torch.full((5, 2), math.inf)}),
    "an alpha that is none": ("lora", {"alpha": NAN}),
    "a magnitude that is none": ("dora", {"dora_scale": torch.full((1, 6), math.nan)}),
    "a number that fp32 does not hold": ("lora", {"lora_up.weight": torch.full((5, 2), 1e300, dtype=torch.float64)}),
}


def written(path: Path, kind: str, changes: dict[str, torch.Tensor]) -> Path:
    save_file({**layer("lora", OTHER), **layer(kind), **{f"{LAYER}.{end}": value for end, value in changes.items()}}, path,
              {"ss_network_module": "networks.dylora"})  # fmt: skip
    return path


def told_by_all(path: Path, *, inspects: bool = False) -> list[str]:
    """What every option and command says that trains on the file, merges, cuts or (where it does not describe it) inspects it."""
    flat = {"rank": 2, "alpha": 2, "text_encoder_lr": 1e-4}
    told = weights_problems(settle(build_config({"network_weights": str(path), **flat}), None))
    told += weights_problems(settle(build_config({"base_weights": [str(path)], **flat}), None))
    assert (
        len(told) == 2 and told[0].startswith("Continue from (network_weights): ") and "Merge first (base_weights): " in told[1]
    )
    readers = [
        lambda: continue_settings(path),
        lambda: truncate(path, 1, path.with_name("cut.safetensors")),
        *([lambda: describe(path)] * inspects),
    ]
    for reader in readers:
        with pytest.raises(LoraFileError) as caught:
            reader()
        told.append(str(caught.value))
    return told


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_by_file_and_layer(damage: str, tmp_path: Path) -> None:
    kind, changes, said = DAMAGE[damage]
    path = written(tmp_path / "a.safetensors", kind, changes)
    for told in told_by_all(path, inspects=True):
        assert said in told and f"{str(path)!r} is damaged: layer {LAYER!r}" in told and OTHER not in told and "\n" not in told


@pytest.mark.parametrize("damage", UNFIT)
def test_what_is_not_finite_is_described_and_not_trained_on(damage: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", *UNFIT[damage])
    for told in told_by_all(path):
        assert f"layer {LAYER!r} has numbers that are not finite" in told
    found = json.loads(json.dumps(describe(path), allow_nan=False))
    assert found["not_finite"] == [LAYER] and found["modules"] == 2 and OTHER in found["strongest"]


def test_every_kind_of_damage_and_how_many_layers_have_it(tmp_path: Path) -> None:
    state = layer("lora") | layer("lora", OTHER) | layer("lora", LAYER.replace("down_blocks_0", "up_blocks_1"))
    state[f"{OTHER}.lora_up.weight"] = torch.full((5, 2), math.nan)
    for name in (LAYER, LAYER.replace("down_blocks_0", "up_blocks_1")):
        state[f"{name}.alpha"] = torch.ones(3)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(LoraFileError) as caught:
        continue_settings(tmp_path / "a.safetensors")
    assert "has 3 numbers in alpha, must be one (and 1 more)" in str(caught.value)
    assert f"layer {OTHER!r} has numbers that are not finite" in str(caught.value)


@pytest.mark.parametrize(
    "kind", [kind for kind in TYPES if kind not in ("boft", "mid", "tucker", "norm", "peft") and "word" not in kind]
)
def test_whole_layers_of_every_type_are_read(kind: str, tmp_path: Path) -> None:
    save_file(layer(kind), tmp_path / "a.safetensors")
    assert describe(tmp_path / "a.safetensors")["not_finite"] == []


def test_alpha_is_read_in_one_way() -> None:
    """Where a file has none it is the rank, 1 where there is no rank, and of an OFT no limit."""
    without: dict[str, Any] = {kind: {end: torch.ones(shape) for end, shape in TYPES[kind].items()} for kind in TYPES}
    found = {kind: alpha_of(without[kind]) for kind in ("lora", "loha", "lokr", "lokr whole", "full", "ia3", "glora", "oft")}
    assert found == {"lora": 2, "loha": 2, "lokr": 2, "lokr whole": 1, "full": 1, "ia3": 1, "glora": 2, "oft": 0}
    for alpha in (torch.tensor(3), torch.ones(1) * 3, torch.tensor([[3.0]], dtype=torch.float16)):
        assert alpha_of({**without["lora"], "alpha": alpha}) == 3.0


@pytest.mark.parametrize("name", sorted(path.name for path in (CASES / "lora-malformed").glob("*.safetensors")))
def test_files_that_were_met(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "lora-malformed" / name
    assert main(["inspect", str(path)]) == 2
    told = capsys.readouterr().err.strip()
    assert str(path) in told and "layer 'lora_unet_" in told and "\n" not in told
    assert (
        len(weights_problems(settle(build_config({"network_weights": str(path), "rank": 2, "text_encoder_lr": 1e-4}), None))) == 1
    )


def test_a_file_of_nan_that_was_met(capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "lora-nan" / "lora.safetensors"
    assert main(["inspect", str(path), "--json"]) == 0

    def no_json(value: str) -> None:
        raise AssertionError(value)

    found = json.loads(capsys.readouterr().out, parse_constant=no_json)
    assert len(found["not_finite"]) == 1 and found["norm_mean"] is None
    (told,) = weights_problems(
        settle(build_config({"network_weights": str(path), "rank": 2, "alpha": 1, "text_encoder_lr": 1e-4}), None)
    )
    assert found["not_finite"][0] in told and "not finite" in told
