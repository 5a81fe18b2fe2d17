"""Options of the LoRA and of captions in whole runs: each changes what it should, and nothing else."""

# ruff: noqa: F811 - fixtures of another file

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_lora.data.sizes import Size
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.events import Finished
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.adapter import State, attached, delta_norm, state_dict
from lib_lora.model.conditioning import TextInputs, encode
from lib_lora.model.dropout import Dropout
from lib_lora.output.preview import PreviewRequest, sample
from lib_lora.output.truncate import truncate
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.initial_adapters import merged_adapters
from tests.conftest import small_config
from tests.models import shared_host
from tests.pairs import new_pair
from tests.test_session import HALVES, WHOLE, farthest, host, squares, trained, write_squares  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def plain(shallow_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> State:
    """The result of the settings that all tests here start from, as `trained` returns it."""
    folder = tmp_path_factory.mktemp("plain")
    return trained(shared_host(shallow_checkpoint, folder / "out"), write_squares(folder), WHOLE)[1]


@pytest.fixture(scope="module")
def plain_file(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> State:
    """The same on `full_host`, as `run` returns it."""
    folder = tmp_path_factory.mktemp("plain")
    return run(shared_host(mini_checkpoint, folder / "out"), write_squares(folder), name="plain")[0]


@pytest.fixture
def full_host(mini_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    """A host with all layers of an SD 1.x."""
    return shared_host(mini_checkpoint, tmp_path / "out")


def run(host: StandaloneHost, squares: Path, **flat: Any) -> tuple[State, dict[str, str]]:
    """A whole run, and its file."""
    config = small_config(squares, host.lora_folder(), **{"steps": 2, "overwrite": True, **flat})
    last = list(train(config, host, RunControl()))[-1]
    assert isinstance(last, Finished) and last.path is not None
    return read(last.path)


DROPOUTS = [{"network_dropout": 0.5}, {"rank_dropout": 0.5}, {"module_dropout": 0.5}]


@pytest.mark.parametrize("option", DROPOUTS, ids=str)
def test_dropout_is_the_same_each_time_and_with_checkpointing(
    host: StandaloneHost,
    squares: Path,
    plain: State,
    option: dict[str, Any],
) -> None:
    _, first, _ = trained(host, squares, WHOLE, **option)
    _, again, _ = trained(host, squares, WHOLE, gradient_checkpointing="on", **option)
    assert farthest(first, plain) > 1e-4 and farthest(first, again) < 1e-6
    if "module_dropout" not in option:  # that one is drawn for a batch, not for a sample
        _, halves, _ = trained(host, squares, HALVES, gradient_accumulation_steps=2, **option)
        _, whole_again, _ = trained(host, squares, WHOLE, **option)
        assert farthest(whole_again, halves) < 1e-4


def test_dropout_knows_where_a_batch_stands(host: StandaloneHost, squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    during = Dropout.during

    def noted(self: Dropout, step: int, first: int, count: int) -> Any:
        seen.append((step, first, count))
        return during(self, step, first, count)

    monkeypatch.setattr(Dropout, "during", noted)
    trained(host, squares, HALVES, gradient_accumulation_steps=2, rank_dropout=0.5)
    assert seen == [(0, 0, 2), (0, 2, 2), (1, 0, 2), (1, 2, 2)]


def test_dropout_is_off_in_pictures(host: StandaloneHost, squares: Path) -> None:
    """A LoRA whose layers are all left out in training is there in a picture."""
    trainer, _, _ = trained(host, squares, WHOLE, module_dropout=0.99, rank_dropout=0.99, unet_lr=0.05)
    for pair in trainer.adapters:
        torch.nn.init.normal_(pair.up, std=0.1)
    with host.borrow_model() as base:
        request = PreviewRequest("a blob", Size(64, 64), 2, 1, 7.0)
        with trainer.result():
            with_it = sample(base, request, trainer.precision)
        with attached(trainer.adapters):
            whole = sample(base, request, trainer.precision)
        without = sample(base, request, trainer.precision)
    assert (with_it == whole).all() and (with_it != without).any()


def test_norms_stay_below_the_largest(host: StandaloneHost, squares: Path) -> None:
    free, _, _ = trained(host, squares, WHOLE)
    trainer, _, _ = trained(host, squares, WHOLE, scale_weight_norms=1e-3)
    assert max(float(delta_norm(pair)) for pair in free.adapters) > 2e-3
    assert max(float(delta_norm(pair)) for pair in trainer.adapters) < 1.0001e-3


def test_blocks_have_ranks_and_alphas_of_their_own(full_host: StandaloneHost, squares: Path) -> None:
    dims = ["2"] * 25
    dims[4], dims[12] = "3", "0"
    alphas = ["1"] * 25
    alphas[4] = "1.5"
    state, metadata = run(full_host, squares, block_dims=",".join(dims), block_alphas=",".join(alphas))
    name = "lora_unet_down_blocks_1_attentions_0_proj_in"
    assert state[f"{name}.lora_down.weight"].shape[0] == 3 and float(state[f"{name}.alpha"]) == 1.5
    assert state["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"].shape[0] == 2
    assert not any("mid_block" in key for key in state)
    arguments = json.loads(metadata["ss_network_args"])
    assert arguments["block_dims"] == ",".join(dims) and arguments["dropout"] is None


def test_block_rates(full_host: StandaloneHost, squares: Path) -> None:
    """AdamW's first step is as long as the rate."""
    _, state, _ = trained(
        full_host, squares, WHOLE[:1], mid_lr_weight="0.5", up_lr_weight="zeros", down_lr_weight="2,2,2,2,2,2,2,2"
    )
    assert not any("up_blocks" in key for key in state)
    largest = {place: max(float(value.abs().max()) for key, value in state.items() if place in key and "lora_up" in key)
               for place in ("mid_block", "down_blocks", "lora_te")}  # fmt: skip
    assert largest == pytest.approx({"mid_block": 5e-4, "down_blocks": 2e-3, "lora_te": 1e-3}, rel=1e-3)


def test_lora_plus(host: StandaloneHost, squares: Path) -> None:
    _, state, _ = trained(host, squares, WHOLE[:1], loraplus_lr_ratio=4, loraplus_text_encoder_lr_ratio=8)
    largest = {part: max(float(value.abs().max()) for key, value in state.items() if part in key and "lora_up" in key)
               for part in ("lora_unet", "lora_te")}  # fmt: skip
    assert largest == pytest.approx({"lora_unet": 4e-3, "lora_te": 8e-3}, rel=1e-3)


def test_metadata_says_what_was_used(host: StandaloneHost, squares: Path) -> None:
    _, plain_metadata = run(host, squares)
    assert plain_metadata["ss_network_dropout"] == plain_metadata["ss_scale_weight_norms"] == "None"
    assert "ss_network_args" not in plain_metadata
    _, metadata = run(host, squares, network_dropout=0.25, scale_weight_norms=1, rank_dropout=0.1, loraplus_lr_ratio=4)
    assert metadata["ss_network_dropout"] == "0.25" and metadata["ss_scale_weight_norms"] == "1.0"
    assert json.loads(metadata["ss_network_args"]) == {"rank_dropout": "0.1", "loraplus_lr_ratio": "4.0", "dropout": 0.25}


def test_a_run_goes_on_from_a_file(host: StandaloneHost, squares: Path, tmp_path: Path) -> None:
    old, _ = run(host, squares, name="old", unet_lr=1e-2, text_encoder_lr=0)
    path = str(host.lora_folder() / "old.safetensors")
    start, _, _ = trained(host, squares, [], network_weights=path)
    for key, value in state_dict(start.adapters).items():
        assert torch.equal(value, old[key]) if key in old else "lora_te" in key
    new, _ = run(host, squares, name="new", network_weights=path, unet_lr=1e-4)
    assert 0 < farthest(old, new) < 5e-3 and len(new) > len(old)
    with pytest.raises(ConfigError, match="has rank 2 at"):
        run(host, squares, name="wide", network_weights=path, rank=4, alpha=2)
    again, _ = run(host, squares, name="same", network_weights=path, rank=4, alpha=4, dim_from_weights=True)
    assert set(again) == set(old) and all(again[key].shape == old[key].shape for key in old)


def write_lora(host: StandaloneHost, path: Path, seed: int) -> dict[str, torch.Tensor]:
    """A strong LoRA of all layers."""
    with host.borrow_model() as base:
        pairs = [new_pair(target, 2, 2.0, seed, base.device) for target in base.targets()]
    torch.manual_seed(seed)
    for pair in pairs:
        torch.nn.init.normal_(pair.up, std=0.1)
    save_file(state_dict(pairs), path)
    return state_dict(pairs)


def test_a_whole_model_with_loras_below_is_the_merged_one(host: StandaloneHost, squares: Path, tmp_path: Path) -> None:
    states = [write_lora(host, tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    paths, strengths = [str(tmp_path / f"{seed}.safetensors") for seed in (1, 2)], ["0.5", "-0.25"]
    config = small_config(squares, tmp_path, base_weights=paths, base_weights_multiplier=strengths)
    ids = torch.tensor([[[49406] + [320] * 75 + [49407]]])
    with host.borrow_model() as base, torch.no_grad():

        def answer() -> torch.Tensor:
            latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
            return base.predict(latents, torch.tensor([500]), encode(base.text_encoders, TextInputs((ids,)), 1))

        plain_answer = answer()
        with attached([], merged_adapters(config, base)):
            ours = answer()
        kept = {target.name: target.module.weight.clone() for target in base.targets()}
        for target in base.targets():
            for state, strength in zip(states, strengths):
                up, down = (state[f"{target.name}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
                target.module.weight += float(strength) * (up @ down).reshape(target.module.weight.shape)
        theirs = answer()
        for target in base.targets():
            target.module.weight.copy_(kept[target.name])
    assert torch.allclose(ours, theirs, atol=1e-4) and not torch.allclose(ours, plain_answer, atol=1e-2)


@pytest.mark.parametrize("text_encoder_lr", [0, 1e-3])
def test_loras_below_are_there_in_steps_and_pictures_and_not_in_the_file(
    host: StandaloneHost,
    squares: Path,
    tmp_path: Path,
    text_encoder_lr: float,
) -> None:
    write_lora(host, tmp_path / "below.safetensors", 1)
    flat = {"base_weights": [str(tmp_path / "below.safetensors")], "text_encoder_lr": text_encoder_lr}
    _, plain_state, plain_losses = trained(host, squares, WHOLE, text_encoder_lr=text_encoder_lr)
    trainer, state, losses = trained(host, squares, WHOLE, **flat)
    assert set(state) == set(plain_state) and abs(losses[0] - plain_losses[0]) > 1e-3
    with host.borrow_model() as base:
        request = PreviewRequest("a blob", Size(64, 64), 2, 1, 7.0)
        with trainer.result():
            picture = sample(base, request, trainer.precision)
        with attached(trainer.adapters):
            without = sample(base, request, trainer.precision)
    assert (picture != without).any()


def test_bad_files_are_told_with_all_other_problems(host: StandaloneHost, squares: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(host, squares, network_weights=str(tmp_path / "no"), base_weights=[str(tmp_path / "none")], mid_lr_weight="x")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("text_encoder_lr", [0, 1e-3])
@pytest.mark.parametrize("rule", ["kohya", "webui"])
def test_weighted_captions_are_read(
    host: StandaloneHost,
    squares: Path,
    text_encoder_lr: float,
    rule: str,
) -> None:
    for number in range(4):
        (squares / f"{number}.txt").write_text(f"a (blob:{number + 1}.5), number [{number}]")
    flat = {"text_encoder_lr": text_encoder_lr, "token_rule": rule}
    literal, weighted = (trained(host, squares, WHOLE[:1], weighted_captions=on, **flat)[2] for on in (False, True))
    for number in range(4):
        (squares / f"{number}.txt").write_text(f"a blob, number {number}")
    unweighted = trained(host, squares, WHOLE[:1], weighted_captions=True, **flat)[2]
    assert len({*literal, *weighted, *unweighted}) == 3


def test_the_webuis_rule_trains_on_as_many_chunks_as_are_needed(host: StandaloneHost, squares: Path) -> None:
    (squares / "1.txt").write_text("a blob, " * 30)
    losses = {
        (rule, rate): trained(host, squares, WHOLE[:1], token_rule=rule, max_token_length="225", text_encoder_lr=rate)[2][0]
        for rule in ("kohya", "webui") for rate in (0, 1e-3)
    }  # fmt: skip
    assert losses["webui", 0] == pytest.approx(losses["webui", 1e-3], rel=1e-5)
    assert losses["webui", 0] != pytest.approx(losses["kohya", 0], rel=1e-6)


def test_a_dylora_is_trained_and_cut_down(host: StandaloneHost, squares: Path, tmp_path: Path) -> None:
    flat = {
        "rank": 4,
        "alpha": 4,
        "optimizer_args": ["eps=1e-4"],
    }  # with less, Adam makes steps of the rounding of small gradients
    _, prefixes, _ = trained(host, squares, WHOLE, unit=1, **flat)
    _, again, _ = trained(host, squares, WHOLE, unit=1, gradient_checkpointing="on", **flat)
    _, whole, _ = trained(host, squares, WHOLE, **flat)
    _, halves, _ = trained(host, squares, HALVES, unit=1, gradient_accumulation_steps=2, **flat)
    assert farthest(prefixes, again) < 1e-6 and farthest(prefixes, halves) < 1e-5 and farthest(prefixes, whole) > 1e-3
    state, metadata = run(host, squares, name="whole", rank=4, alpha=2, unit=2, conv_dim=4, save_precision="fp16")
    assert metadata["ss_network_module"] == "networks.dylora" and json.loads(metadata["ss_network_args"])["unit"] == "2"
    source, out = host.lora_folder() / "whole.safetensors", tmp_path / "two.safetensors"
    small, told = read(truncate(source, 2, out))
    assert set(small) == set(state) and all(value.dtype == torch.float16 for value in small.values())
    for key, value in state.items():
        cut = {"lora_down.weight": value[:2], "lora_up.weight": value[:, :2]} if value.dim() else {}
        assert torch.equal(small[key], cut.get(key.partition(".")[2], value))
    integer = torch.tensor(2)  # as sd-scripts may write alphas
    theirs = {key: value if value.dim() else integer.clone() for key, value in state.items()}
    save_file(theirs, tmp_path / "theirs.safetensors", {"ss_network_module": "networks.dylora"})
    one, _ = read(truncate(tmp_path / "theirs.safetensors", 1, tmp_path / "one.safetensors"))
    assert all(
        torch.equal(one[key], small[key][:1] if "lora_down" in key else small[key][:, :1]) for key in one if "alpha" not in key
    )
    assert told["ss_output_name"] == told["modelspec.title"] == "two", "two files of one alias are none in a prompt"
    word = {"bundle_emb.ohwx.emb_params": torch.ones(2, 3)}
    save_file({**state, **word}, tmp_path / "word.safetensors", metadata)
    kept, _ = read(truncate(tmp_path / "word.safetensors", 2, tmp_path / "kept.safetensors"))
    assert kept.keys() == {*small, *word} and torch.equal(
        kept["bundle_emb.ohwx.emb_params"], torch.ones(2, 3, dtype=torch.float16)
    )
    assert told["ss_network_dim"] == "2" and told["ss_training_comment"].startswith("cut down from rank 4 to 2")
    assert told["sshs_model_hash"] != metadata["sshs_model_hash"]
    with pytest.raises(LoraFileError, match="exists already"):
        truncate(source, 2, out)
    for rank in (0, 3, 4):
        with pytest.raises(LoraFileError, match=f"got {rank}, must be a multiple of 2"):
            truncate(source, rank, tmp_path / "other.safetensors")
    run(host, squares, name="usual")
    with pytest.raises(LoraFileError, match="was not trained to be cut down"):
        truncate(host.lora_folder() / "usual.safetensors", 1, tmp_path / "other.safetensors")


TYPES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "dora": ({}, {"lora_down.weight", "lora_up.weight", "dora_scale"}),
    "loha": ({}, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
    "lokr": ({"factor": 4, "conv_dim": 2}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}),
    "ia3": ({}, {"weight", "on_input"}),
    "diag-oft": ({"conv_dim": 2, "rank": 4}, {"oft_blocks"}),
    "glora": ({"alpha": 2}, {"a1.weight", "a2.weight", "b1.weight", "b2.weight"}),
}
LAYERS = {"lokr": 12 + 278, "diag-oft": 12 + 278, "ia3": 10 + 80, "glora": 12 + 160}


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_trained_saved_and_gone_on_with(
    kind: str, full_host: StandaloneHost, squares: Path, plain_file: State
) -> None:
    host = full_host
    options, ends = TYPES[kind]
    flat = {"adapter_type": kind, "network_dropout": 0.1, **options}
    state, metadata = run(host, squares, name="first", unet_lr=0.01, **flat)
    assert {key.partition(".")[2] for key in state} == ends | ({"alpha"} if kind != "ia3" else set())
    layers = len({key.partition(".")[0] for key in state})
    assert layers == LAYERS.get(kind, 12 + 192)
    assert kind != "diag-oft" or not any(value for key, value in state.items() if key.endswith(".alpha")), "a limit of 0 is none"
    assert metadata["ss_network_module"] == "lycoris.kohya"
    arguments = json.loads(metadata["ss_network_args"])
    assert arguments["algo"] == {"dora": "locon"}.get(kind, kind)
    assert ("preset" in arguments) != ("conv_dim" in options) and arguments.get("wd_on_output") == (
        None if kind != "dora" else "False"
    )
    path = str(host.lora_folder() / "first.safetensors")
    on, _ = run(host, squares, name="second", network_weights=path, unet_lr=1e-5, text_encoder_lr=0, **flat)
    assert 0 < farthest(state, on) < 1e-3 and set(on) == set(state)
    with pytest.raises(
        ConfigError, match=f"has type {kind} at .* but Type .adapter_type. is lora; set Type .adapter_type. to {kind}"
    ):
        run(host, squares, name="third", network_weights=path)
    if kind != "dora":  # below another LoRA
        below, _ = run(host, squares, name="fourth", base_weights=[path])
        assert farthest(below, plain_file) > 0


def test_a_type_learns_as_well(host: StandaloneHost, squares: Path) -> None:
    """Checkpointing and several batches in a step change nothing."""
    for kind in TYPES:
        _, once, losses = trained(host, squares, WHOLE, adapter_type=kind)
        _, again, _ = trained(host, squares, WHOLE, adapter_type=kind, gradient_checkpointing="on")
        _, halves, _ = trained(host, squares, HALVES, adapter_type=kind, gradient_accumulation_steps=2)
        assert farthest(once, again) < 1e-6 and farthest(once, halves) < 1e-3 and losses[0] > 0
