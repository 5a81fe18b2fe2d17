"""LoRA types that cannot be trained here are named, with the layer and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lib_lora.errors import LoraFileError
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.output.inspect import describe
from lib_lora.training.continue_settings import continue_settings
from lib_lora.training.continued_files import weights_problems
from tests.test_foreign_loras import CONV, TOLD, config, saved

RARER = {  # what LyCORIS and ComfyUI write: the shapes of a layer's tensors, and what is said of it
    "Tucker": ({"lora_down.weight": (2, 64, 1, 1), "lora_up.weight": (64, 2, 1, 1), "lora_mid.weight": (2, 2, 3, 3)}, "a LoCon with Tucker"),
    "Tucker's LoHa": ({**dict.fromkeys(("hada_w1_a", "hada_w2_a", "hada_w1_b", "hada_w2_b"), (2, 64)), "hada_t1": (2, 2, 3, 3),
                       "hada_t2": (2, 2, 3, 3)}, "a LoHa with Tucker"),
    "Tucker's LoKr": ({"lokr_w1": (8, 8), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 8), "lokr_w2_b": (2, 8)}, "a LoKr with Tucker"),
    "rescaled": ({"oft_blocks": (4, 16, 16), "rescale": (64, 1, 1, 1)}, "choose one made without rescaled"),
    "BOFT": ({"oft_blocks": (2, 4, 16, 16)}, "a BOFT (butterfly); choose an OFT"),
    "GLoRA": ({"a1.weight": (64, 2, 1, 1), "a2.weight": (2, 64, 1, 1), "b1.weight": (64, 2, 1, 1), "b2.weight": (2, 64, 3, 3)},
              "a GLoRA of a convolution; choose one of the transformers only"),
    "bias_diff": ({"lora_down.weight": (2, 64, 3, 3), "lora_up.weight": (64, 2, 1, 1), "diff_b": (64,)}, "ComfyUI's bias_diff"),
    "two things": ({"hada_w1_a": (2, 64), "on_input": (1,)}, "with hada_w1_a, on_input; choose a file of another type"),
    "norm": ({"w_norm": (64,), "b_norm": (64,)}, "with b_norm, w_norm; choose a file of another type"),
}  # fmt: skip


@pytest.mark.parametrize("case", RARER)
def test_a_rarer_type_is_named_by_its_layer_with_the_remedy(case: str, tmp_path: Path) -> None:
    """And never by a tensor that other types have too, such as its alpha; an inspection describes what else the file has."""
    shapes, said = RARER[case]
    state = {f"{CONV}.alpha": torch.tensor(1.0), **{f"{CONV}.{end}": torch.zeros(shape) for end, shape in shapes.items()}}
    path = saved(tmp_path, state)
    for option, given in (("network_weights", path), ("base_weights", [path])):
        (problem,) = weights_problems(config(**{option: given}), DetectedModel(SD1, "a test"))
        assert (
            problem.startswith(TOLD[option])
            and said in problem
            and f"a layer of a type that cannot be trained, {CONV!r}" in problem
        )
    with pytest.raises(LoraFileError, match="cannot be trained") as error:
        describe(Path(path))
    assert said in str(error.value)
    with pytest.raises(LoraFileError, match="Continue from.*cannot be trained"):
        continue_settings(Path(path))
    plain = {f"lora_unet_mid_block_attentions_0_proj_in.lora_{half}.weight": torch.zeros(2, 2) for half in ("down", "up")}
    found = describe(Path(saved(tmp_path, {**state, **plain}, "both")))
    assert said in found["rarer_types"][CONV] and (found["type"], found["modules"], found["incomplete"]) == ("LoRA", 1, [])


def test_a_type_that_is_not_trained_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = saved(tmp_path, {f"{CONV}.diff": torch.zeros(64, 64, 3, 3)}, "whole")
    (problem,) = weights_problems(config(network_weights=path), DetectedModel(SD1, "a test"))
    assert "has type full" in problem and "use the file in Merge first (base_weights)" in problem
    with pytest.raises(
        LoraFileError, match=r"has type full, which cannot be continued; .* use the file in Merge first \(base_weights\)"
    ):
        continue_settings(Path(path))
    assert weights_problems(config(base_weights=[path]), DetectedModel(SD1, "a test")) == []
