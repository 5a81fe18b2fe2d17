"""Settings of the webui that reach its model: the training sees the checkpoint alone, or what a person chose, and gives all back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e import client
from tests.e2e.conftest import run_server
from tests.e2e.round_trip import LOSSES
from tests.e2e.server import Server, Webui, make_data_folder
from tests.e2e.test_families import standalone_losses

pytestmark = [pytest.mark.e2e, pytest.mark.case(45)]

VAE = "first_stage_model."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a textual inversion that no caption names, and a VAE that is not the checkpoint's."""
    folder = tmp_path_factory.mktemp("settings") / "data"
    make_data_folder(folder)
    weights = load_file(checkpoint_in(folder))
    width = weights["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"].shape[1]
    (folder / "embeddings").mkdir(exist_ok=True)
    save_file(
        {"emb_params": torch.randn(2, width, generator=torch.Generator().manual_seed(1))},
        folder / "embeddings" / "unspoken.safetensors",
    )
    (folder / "models" / "VAE").mkdir(exist_ok=True)
    save_file(other_vae(weights), folder / "models" / "VAE" / "other.safetensors")
    return folder


def checkpoint_in(folder: Path) -> Path:
    return next((folder / "models" / "Stable-diffusion").glob("*.safetensors"))


def other_vae(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The checkpoint's VAE with a convolution that answers half as loud."""
    vae = {key.removeprefix(VAE): value for key, value in weights.items() if key.startswith(VAE)}
    return {**vae, "encoder.conv_in.weight": vae["encoder.conv_in.weight"] * 0.5}


@pytest.fixture(scope="module")
def settings_server(webui: Webui, data: Path) -> Iterator[Server]:
    yield from run_server(Server(webui, data))


@pytest.fixture(scope="module")
def plain(settings_server: Server, photos: Path) -> list[float]:
    """The losses of a run under the webui's own defaults."""
    client.generate(settings_server, client.PROMPT)
    return losses(settings_server, photos, "plain")


def losses(server: Server, photos: Path, name: str) -> list[float]:
    """The losses of a run that leaves the host as it was."""
    before = client.fingerprint(server)
    job = client.train(server, photos, name, overwrite=True)
    assert job["state"] == "done", job
    assert client.changes(before, client.fingerprint(server)) == []
    found: list[float] = job["losses"]
    return found


@pytest.mark.parametrize(
    "options",
    [{"CLIP_stop_at_last_layers": 2}, {"upcast_attn": True}, {"sd_noise_schedule": "Zero Terminal SNR"}, {"token_merging_ratio": 0.5},
     {"emphasis": "No norm"}, {"eta_noise_seed_delta": 31337}, {"cross_attention_optimization": "sub-quadratic"}],
    ids=str,
)  # fmt: skip
def test_settings_that_a_training_does_not_see(
    settings_server: Server, plain: list[float], photos: Path, options: dict[str, Any]
) -> None:
    """Set, used for a picture, and then trained under: the same losses, and the same picture as before."""
    old = {name: settings_server.get("/sdapi/v1/options")[name] for name in options}
    settings_server.post("/sdapi/v1/options", options)
    try:
        picture = client.generate(settings_server, client.PROMPT)
        assert losses(settings_server, photos, "unseen") == plain
        assert (client.generate(settings_server, client.PROMPT) == picture).all()
    finally:
        settings_server.post("/sdapi/v1/options", old)


@pytest.mark.parametrize("functional", [False, True], ids=["in the weights", "in the forward"])
def test_a_lora_of_the_last_prompt(settings_server: Server, photos: Path, functional: bool) -> None:
    """Left on by a prompt, the usual way and with the setting lora_functional: what is trained then is bit for bit what is without it."""
    strong = {"save_precision": "float", "overwrite": True}
    for name, more in (("left on", {"seed": 5}), ("without", {})):
        assert client.train(settings_server, photos, name, **strong, **more)["state"] == "done"
    prompt = f"{client.PROMPT} <lora:left on:1>"
    plain = client.generate(settings_server, client.PROMPT)
    settings_server.post("/sdapi/v1/options", {"lora_functional": functional})
    try:
        picture = client.generate(settings_server, prompt)
        assert not (picture == plain).all()
        assert client.train(settings_server, photos, "with", **strong)["state"] == "done"
        with_it, without = (load_file(settings_server.lora_folder / f"{name}.safetensors") for name in ("with", "without"))
        assert with_it.keys() == without.keys() and all(torch.equal(with_it[key], without[key]) for key in without)
        assert (client.generate(settings_server, prompt) == picture).all()
        assert (client.generate(settings_server, client.PROMPT) == plain).all()
    finally:
        settings_server.post("/sdapi/v1/options", {"lora_functional": False})


def test_a_textual_inversion_that_no_caption_names(settings_server: Server, plain: list[float], data: Path, photos: Path) -> None:
    """The webui knows it, and the training is that of a host that has none. Those that are named: `test_embedding.py`."""
    assert "unspoken" in settings_server.get("/sdapi/v1/embeddings")["loaded"]
    assert plain == pytest.approx(standalone_losses(checkpoint_in(data), photos, data.parent / "none"), rel=LOSSES)


def test_a_hypernetwork_that_is_on(settings_server: Server, plain: list[float], photos: Path) -> None:
    """Of the last prompt: it changes pictures, not the training, and is on again afterwards."""
    picture = client.generate(settings_server, client.PROMPT)
    made = {"name": "loud", "enable_sizes": ["64", "128"], "layer_structure": [1, 2, 1], "weight_init": "XavierNormal"}
    settings_server.post("/sdapi/v1/create/hypernetwork", {**made, "activation_func": "linear", "overwrite_old": True})
    settings_server.post("/e2e/hypernetwork?name=loud")
    on = client.fingerprint(settings_server)
    assert on["program"]["hypernetworks"] != "[]"
    assert losses(settings_server, photos, "hypernetwork") == plain
    assert client.fingerprint(settings_server) == on
    settings_server.post("/e2e/hypernetwork?name=")
    assert (client.generate(settings_server, client.PROMPT) == picture).all()


def test_a_vae_that_a_person_chose(settings_server: Server, plain: list[float], data: Path, photos: Path, tmp_path: Path) -> None:
    """Its latents are trained on: the losses of a checkpoint that has this VAE inside."""
    weights = load_file(checkpoint_in(data))
    swapped = tmp_path / "swapped.safetensors"
    save_file({**weights, **{VAE + key: value for key, value in other_vae(weights).items()}}, swapped)
    settings_server.post("/sdapi/v1/options", {"sd_vae": "other.safetensors"})
    try:
        found = losses(settings_server, photos, "vae")
    finally:
        settings_server.post("/sdapi/v1/options", {"sd_vae": "Automatic"})
    assert found == pytest.approx(standalone_losses(swapped, photos, tmp_path), rel=LOSSES) and found != pytest.approx(
        plain, rel=0.01
    )
    assert losses(settings_server, photos, "vae") == plain


def test_weights_stored_in_8_bits(settings_server: Server, plain: list[float], photos: Path) -> None:
    """The setting "FP8 weight": trained on as they are, and still the same bits."""
    settings_server.post("/sdapi/v1/options", {"fp8_storage": "Enable"})
    try:
        tensors = client.fingerprint(settings_server)["tensors"]
        assert sum("float8_e4m3fn" in described for described in tensors.values()) > 400
        found = losses(settings_server, photos, "eight bits")
    finally:
        settings_server.post("/sdapi/v1/options", {"fp8_storage": "Disable"})
    assert found == pytest.approx(plain, rel=0.25) and found != pytest.approx(plain, rel=1e-4)
    # the webui reloads the checkpoint by way of fp16 when the setting is taken back
    assert losses(settings_server, photos, "after") == pytest.approx(plain, rel=1e-3)
