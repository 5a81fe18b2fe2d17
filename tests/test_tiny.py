"""The embedded tiny checkpoint: its layout, that a webui can load it, and that it draws what the prompt says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from lib_lora.cli import main
from lib_lora.families.sd1 import SD1
from lib_lora.hosts.architecture import text_config, unet_config, vae_config
from lib_lora.hosts.checkpoint import kind_of_file
from lib_lora.tiny import EMBEDDED, write_tiny

Shapes = dict[str, torch.Tensor]
FEW_STEPS = 4  # after so few all is there but the corners of a box


@pytest.fixture(scope="module")
def weights() -> Shapes:
    with safe_open(EMBEDDED, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_layout_is_that_of_stable_diffusion_1(weights: Shapes) -> None:
    assert kind_of_file(EMBEDDED).family is SD1
    assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
    unet, vae = unet_config(weights), vae_config(weights)
    assert len(unet["block_out_channels"]) == len(vae["block_out_channels"]) == 4
    assert all(width % 32 == 0 for width in (*unet["block_out_channels"], *vae["block_out_channels"]))
    assert text_config(weights)["vocab_size"] == 49408
    for level in range(4):
        blocks = [f"model.diffusion_model.input_blocks.{3 * level + block}.0.in_layers.0.weight" for block in (1, 2)]
        assert all(key in weights for key in blocks)


def test_the_command_writes_it_ready_for_a_webui(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny", str(tmp_path / "models")]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.read_bytes() == EMBEDDED.read_bytes()
    config = yaml.safe_load(path.with_suffix(".yaml").read_text())["model"]["params"]
    clip = Path(config["cond_stage_config"]["params"]["version"])
    assert clip.is_absolute() and {"vocab.json", "merges.txt", "config.json"} <= {file.name for file in clip.iterdir()}
    assert json.loads((clip / "config.json").read_text())["vocab_size"] == 49408


def test_ldm_loads_every_weight(tmp_path: Path) -> None:
    pytest.importorskip("ldm")
    from tests.pins.webui_double import load_ldm

    model = load_ldm(write_tiny(tmp_path))
    stored = sum(float(value.double().sum()) for value in _weights(EMBEDDED).values() if value.is_floating_point())
    names = ("model.diffusion_model", "first_stage_model", "cond_stage_model")
    loaded = sum(float(value.double().sum()) for name, value in model.named_parameters() if name.startswith(names))
    assert loaded == pytest.approx(stored, rel=1e-6)


def _weights(path: Path) -> Shapes:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """Three pictures per prompt."""
    pytest.importorskip("diffusers")
    from lib_lora.hosts.standalone import StandaloneHost
    from tools import demo_score

    quick = [f"a {colour} box on gravel" for colour in ("red", "green", "blue", "yellow")]
    quick += ["a blue ball on grass", "a red ball on sky", "a red star on sky"]
    folder, pictures = tmp_path_factory.mktemp("tiny"), {}
    with StandaloneHost(write_tiny(folder), folder, torch.device("cpu")).borrow_model() as base:
        for prompts, steps in ((quick, FEW_STEPS), (["a red box on sky"], demo_score.SAMPLING_STEPS)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(demo_score, "SAMPLING_STEPS", steps)
                pictures.update({prompt: demo_score.draw(base, prompt, seeds=3) for prompt in prompts})
    return pictures


def _thing(picture: np.ndarray) -> np.ndarray:
    """Where the picture is most colourful in its own way: the pixels far from the colour of its edges."""
    edges = np.concatenate([picture[:4].reshape(-1, 3), picture[-4:].reshape(-1, 3)])
    away = np.linalg.norm(picture.astype(float) - np.median(edges, axis=0), axis=2)
    return away > 0.5 * np.percentile(away, 97)


@pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow"])
def test_it_draws_colours(drawn: dict[str, list[np.ndarray]], colour: str) -> None:
    from tools.tiny.pictures import COLOURS

    wrong = 0
    for picture in drawn[f"a {colour} box on gravel"]:
        thing = np.median(picture[_thing(picture)], axis=0)
        wrong += min(COLOURS, key=lambda name: float(np.square(thing - COLOURS[name]).sum())) != colour
    assert wrong == 0


def test_it_draws_what_things_stand_on(drawn: dict[str, list[np.ndarray]]) -> None:
    def surroundings(prompt: str) -> np.ndarray:
        return np.mean([np.median(picture[~_thing(picture)], axis=0) for picture in drawn[prompt]], axis=0)

    grass, gravel, sky = (surroundings(p) for p in ("a blue ball on grass", "a red box on gravel", "a red star on sky"))
    assert grass[1] > grass[0] > grass[2], "grass is green"
    assert np.ptp(gravel) < 25, "gravel is grey"
    assert sky[2] > sky[1] > sky[0] and sky[2] > 180, "the sky is blue"


def test_it_draws_things(drawn: dict[str, list[np.ndarray]]) -> None:
    """A box fills the rectangle around it, a ball less, a star least."""

    def filled(thing: str) -> float:
        shares = []
        for picture in drawn[f"a red {thing} on sky"]:
            red = picture[..., 0].astype(int) - picture[..., 2] > 40
            rows, columns = np.nonzero(red)
            shares.append(red.sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1))
        return float(np.median(shares))

    assert filled("box") > 0.86 > filled("ball") > 0.66 > filled("star") > 0.3


def test_the_training_script_goes_from_nothing_to_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with two steps of each phase on few pictures; how long the real lengths take is said in docs/tiny.md."""
    pytest.importorskip("diffusers")
    import tools.tiny.__main__ as script
    from tools.tiny import denoiser, vae

    monkeypatch.setattr(vae, "BATCH", 4)
    monkeypatch.setattr(denoiser, "BATCH", 8)
    monkeypatch.setattr(vae, "PAINTED", 30)
    monkeypatch.setattr(vae, "PHOTOGRAPHS", 15)
    monkeypatch.setattr(vae, "WHITENED_ON", 8)
    monkeypatch.setattr(script, "VAE_STEPS", 2)
    monkeypatch.setattr(script, "PICTURES", 6)
    monkeypatch.setattr(script, "PHASES", tuple(dataclasses.replace(phase, steps=2) for phase in script.PHASES))
    made, embedded = _weights(script.main(tmp_path)), _weights(EMBEDDED)
    assert {key: (value.shape, value.dtype) for key, value in made.items()} == {
        key: (value.shape, value.dtype) for key, value in embedded.items()
    }
    assert kind_of_file(tmp_path / "tiny-sd1.safetensors").family is SD1
