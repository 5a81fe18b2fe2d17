"""Families other than SD 1.x on the standalone host: names, conditioning, whole runs, and recorded steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_lora.check import look
from lib_lora.config.groups import build_config
from lib_lora.config.settled import Settled
from lib_lora.data.augmentation import drawn_augmentation
from lib_lora.data.buckets import told_sizes
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import caption_ids
from lib_lora.errors import ConfigError
from lib_lora.events import Chosen, Event, Finished, Planned, StepDone
from lib_lora.families.family import DetectedModel
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL
from lib_lora.files.lora_file import read
from lib_lora.hosts.architecture import family_of, text_config, unet_config
from lib_lora.hosts.checkpoint import kind_of_file, read_shapes
from lib_lora.hosts.standalone import DiffusersModel, StandaloneHost
from lib_lora.model.adapter import state_dict
from lib_lora.model.conditioning import Conditioning, TextInputs, encode, size_vector
from lib_lora.model.targets import fitted, text_encoder_targets, unet_targets
from lib_lora.plan import Batch
from lib_lora.replay.step import Recording, replay
from lib_lora.run_control import RunControl
from lib_lora.settle import settled_for, settled_notes
from lib_lora.train import train
from lib_lora.training.latents import LatentSource
from lib_lora.training.noising import draw
from lib_lora.training.step import StepInputs, compute_loss
from tests.conftest import small_config, write_picture
from tests.finite_differences import slopes, word_slopes
from tests.models import shared_host
from tests.pairs import new_pair
from tests.synthetic import write_mini_sd2, write_mini_sdxl
from tests.webui_configs import write_sdxl

DATA = Path(__file__).parent / "data"
NAMES = json.loads((DATA / "kohya-names.json").read_text())  # names and shapes, made by sd-scripts' own LoRANetwork, rank 4
READ = "read from the keys and shapes of the checkpoint file"
FAMILIES = ["mini_inpainting", "mini_sd2", "mini_sdxl"]


def described(targets: list[Any]) -> set[str]:
    return {f"{t.name} {[4, t.module.weight.shape[1]]} {[t.module.weight.shape[0], 4]}" for t in targets}


def test_names_and_shapes_of_a_full_sdxl_are_kohyas() -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    shapes = json.loads((DATA / "sdxl_shapes.json").read_text())
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
        configs = [
            text_config(weights, prefix) for prefix in ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
        ]
        kinds = [CLIPTextModel, CLIPTextModelWithProjection]
        encoders = [kind(CLIPTextConfig(**config)) for kind, config in zip(kinds, configs)]
        unet = UNet2DConditionModel(**unet_config(weights))
    text = [t for encoder, prefix in zip(encoders, SDXL.text_prefixes) for t in text_encoder_targets(encoder, prefix)]
    found = unet_targets(unet, SDXL)
    assert described(text + found) == set(NAMES["sdxl"])
    assert (len(text), len(found)) == (264, 722) and family_of(shapes) is SDXL
    assert [config["num_attention_heads"] for config in configs] == [12, 20]
    assert configs[1]["hidden_act"] == "gelu" and configs[1]["projection_dim"] == 1280


def test_names_and_shapes_of_a_full_sd2_are_kohyas() -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = {
        "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True,
    }  # fmt: skip
    config = CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
    with torch.device("meta"):
        targets = text_encoder_targets(CLIPTextModel(config)) + unet_targets(UNet2DConditionModel(**unet), SD2)
    assert described(targets) == set(NAMES["sd2"]) and len(targets) == 138 + 192


def test_families_are_told_apart(mini_sd2: Path, mini_sdxl: Path, mini_inpainting: Path, mini_checkpoint: Path) -> None:
    found = [family_of(read_shapes(path)) for path in (mini_checkpoint, mini_sd2, mini_sdxl, mini_inpainting)]
    assert found[:3] == [SD1, SD2, SDXL] and getattr(found[3], "name", "") == "SD 1.x inpainting"
    shapes = read_shapes(mini_sdxl)
    assert kind_of_file(mini_sdxl).family is SDXL
    assert family_of({key: shape for key, shape in shapes.items() if "middle_block.1." not in key}) == "SSD-1B"


def run(config: Any, host: StandaloneHost) -> list[Event]:
    return list(train(config, host, RunControl()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_run(family: str, request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> None:
    """All parts are trained, the file has every key of the family and its metadata, and the base is untouched."""
    host = shared_host(request.getfixturevalue(family), tmp_path)
    with host.borrow_model() as base:
        before = [weight.clone() for weight in base.unet.parameters()]
        names = {target.name for target in base.targets()}
    events = run(small_config(photos, tmp_path, preview_steps=2, gradient_checkpointing="on"), host)
    assert sum(isinstance(event, StepDone) for event in events) == 3
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    assert (
        next(e.text for e in events if isinstance(e, Chosen))
        == f"Model: {base.family.name}, predicts noise (nothing indicates v); {READ}."
    )
    state, metadata = read(events[-1].path)
    assert {key.partition(".")[0] for key in state} == names
    ups = [value for key, value in state.items() if key.endswith("lora_up.weight")]
    assert all(bool(value.abs().max() > 0) for value in ups) or family == "mini_sdxl"  # CLIP-L's last layer is not read
    assert all(torch.equal(weight, old) for weight, old in zip(base.unet.parameters(), before))
    told = {
        "mini_inpainting": ("sd_v1", "False", "stable-diffusion-v1/lora", "diffusers", "SD1"),
        "mini_sd2": ("sd_v2", "True", "stable-diffusion-v2-512/lora", "diffusers", "SD2"),
        "mini_sdxl": (
            "sdxl_base_v1-0",
            "False",
            "stable-diffusion-xl-v1-base/lora",
            "https://github.com/Stability-AI/generative-models",
            "SDXL",
        ),
    }[family]
    keys = ("ss_base_model_version", "ss_v2", "modelspec.architecture", "modelspec.implementation")
    card = json.loads(events[-1].path.with_suffix(".json").read_text())
    assert (*(metadata[key] for key in keys), card["sd version"]) == told


def test_which_layers_of_sdxl_learn(mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    """All but the last layer of CLIP-L, which nothing reads; bigG's last layer is read by what is pooled."""
    events = run(small_config(photos, tmp_path), shared_host(mini_sdxl, tmp_path))
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    state, _ = read(events[-1].path)
    still = {key.partition(".")[0] for key, value in state.items() if key.endswith("lora_up.weight") and not value.any()}
    assert still == {name for name in (key.partition(".")[0] for key in state) if "lora_te1_text_model_encoder_layers_1_" in name}


@pytest.fixture
def sdxl(mini_sdxl: Path, tmp_path: Path) -> Iterator[DiffusersModel]:
    with shared_host(mini_sdxl, tmp_path).borrow_model() as base:
        yield base


def test_a_step_of_sdxl_is_that_of_diffusers_own_pipeline(sdxl: DiffusersModel) -> None:
    """Captions, pooled text and sizes through diffusers' StableDiffusionXLPipeline.encode_prompt and its U-Net."""
    from diffusers import DDPMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    from lib_lora.data.tokens import VOCABULARY

    first = CLIPTokenizer.from_pretrained(str(VOCABULARY), local_files_only=True)
    second = CLIPTokenizer.from_pretrained(str(VOCABULARY), local_files_only=True, pad_token="!")
    one, two = (encoder.module for encoder in sdxl.text_encoders)
    pipeline = StableDiffusionXLPipeline(
        vae=sdxl.vae, text_encoder=one, text_encoder_2=two, tokenizer=first, tokenizer_2=second, unet=sdxl.unet,
        scheduler=DDPMScheduler(), add_watermarker=False,
    )  # fmt: skip
    captions = ["a rocket on the launch pad", ""]
    sizes = torch.tensor([[427, 640, 0, 42, 256, 384], [300, 451, 5, 0, 256, 256]])
    generator = torch.Generator().manual_seed(3)
    noisy, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([924, 30])
    with torch.no_grad():
        context, _, pooled, _ = pipeline.encode_prompt(captions, device="cpu", do_classifier_free_guidance=False)
        added = {"text_embeds": pooled, "time_ids": sizes}
        theirs = sdxl.unet(noisy, timesteps, context, added_cond_kwargs=added).sample
        wanted = float((theirs - noise).pow(2).mean())
        ids = tuple(
            torch.tensor([caption_ids(sdxl.tokenizer, caption, 75, encoder.pad_id) for caption in captions])
            for encoder in sdxl.text_encoders
        )
        inputs = StepInputs(noisy, noise, timesteps, TextInputs(ids), sizes)
        ours = float(compute_loss(sdxl, inputs, build_config({}).objective, 1))
    assert ours == pytest.approx(wanted, rel=1e-4)
    assert torch.equal(ids[0][0, 0, -2:], torch.tensor([49407, 49407])) and torch.equal(ids[1][0, 0, -2:], torch.tensor([0, 0]))


def test_sizes_reach_the_picture(sdxl: DiffusersModel) -> None:
    noisy, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    width = sdxl.unet.config.cross_attention_dim  # type: ignore[union-attr]
    given = Conditioning(torch.randn(1, 77, width), torch.randn(1, 256), torch.tensor([[64, 64, 0, 0, 64, 64]]))
    with torch.no_grad():
        plain = sdxl.predict(noisy, timesteps, given)
        other = sdxl.predict(noisy, timesteps, Conditioning(given.context, given.pooled, torch.tensor([[64, 64, 0, 9, 64, 64]])))
    assert float((plain - other).abs().max()) > 1e-4


def test_the_vector_is_pooled_text_and_six_sinusoids() -> None:
    sizes = torch.tensor([[1, 2, 3, 4, 5, 6]])
    vector = size_vector(Conditioning(torch.zeros(1, 1, 1), torch.full((1, 2), 7.0), sizes))
    assert vector is not None and vector.shape == (1, 2 + 6 * 256) and vector[0, :2].tolist() == [7.0, 7.0]
    place = 2 + 3 * 256  # of the fourth number, 4: cosines first, the highest rate is 1
    assert vector[0, place] == pytest.approx(-0.6536436) and vector[0, place + 128] == pytest.approx(-0.7568025)
    assert vector[0, place + 127] == pytest.approx(1.0, abs=1e-6)


def test_told_sizes_are_sd_scripts() -> None:
    """The golden recording's own: an image of 640 x 427 in a bucket of 256 x 256 tells a cut of 42 at the top."""
    assert told_sizes(Size(427, 640), Size(256, 256), mirrored=False) == (427, 640, 42, 0, 256, 256)
    assert told_sizes(Size(640, 427), Size(256, 256), mirrored=False) == (640, 427, 0, 42, 256, 256)
    assert told_sizes(Size(640, 427), Size(256, 256), mirrored=True) == (640, 427, 0, 256 - 212, 256, 256)


def test_text_encoder_gradients_are_those_of_finite_differences(
    mini_checkpoint: Path, mini_sd2: Path, mini_sdxl: Path, tmp_path: Path
) -> None:
    """Of every kind of text encoder, along a random direction, in double precision."""
    for checkpoint in (mini_checkpoint, mini_sd2, mini_sdxl):
        with StandaloneHost(checkpoint, tmp_path).borrow_model() as base:
            for encoder, prefix in zip(base.text_encoders, base.family.text_prefixes):
                encoder.module.double()
                targets = [target for target in base.targets() if target.name.startswith(prefix + "_")]
                by_backward, by_values = slopes(encoder, targets)
                assert by_backward == pytest.approx(by_values, rel=1e-5) and abs(by_values) > 1e-4, base.family.name
                by_backward, by_values = word_slopes(encoder)
                assert by_backward == pytest.approx(by_values, rel=1e-5) and abs(by_values) > 1e-4, base.family.name


def test_sd2_may_predict_v(mini_sd2: Path, photos: Path, tmp_path: Path) -> None:
    """By a webui's configuration beside the file, or by hand."""
    by_hand = run(small_config(photos, tmp_path, name="hand", v_parameterization=True), shared_host(mini_sd2, tmp_path))
    linked = tmp_path / "v.safetensors"
    linked.symlink_to(mini_sd2)
    linked.with_suffix(".yaml").write_text("model: {params: {parameterization: v}}")
    by_file = run(small_config(photos, tmp_path, name="file"), shared_host(linked, tmp_path))
    losses = [[event.loss for event in events if isinstance(event, StepDone)] for events in (by_hand, by_file)]
    assert losses[0] == losses[1]
    texts = [next(event.text for event in events if isinstance(event, Chosen)) for events in (by_hand, by_file)]
    assert texts == [f"Model: SD 2.x, predicts v (set by Checkpoint predicts v); {READ}.",
                     f"Model: SD 2.x, predicts v (set in v.yaml); {READ}."]  # fmt: skip
    metadata = read(tmp_path / "file.safetensors")[1]
    assert metadata["ss_base_model_version"] == "sd_v2_v" and metadata["modelspec.prediction_type"] == "v"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"


@pytest.mark.parametrize("said_by", ["its mark", "a yaml beside it", "the settings", "nothing"])
def test_sdxl_that_predicts_v(said_by: str, mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    """A whole run: the first loss is the one worked out here from velocities, and a file tells it."""
    checkpoint = tmp_path / "xl.safetensors"
    if said_by == "its mark":
        save_file({**load_file(mini_sdxl), "v_pred": torch.zeros(0)}, checkpoint)
    else:
        checkpoint.symlink_to(mini_sdxl)
    if said_by == "a yaml beside it":
        write_sdxl(checkpoint, load_file(mini_sdxl), velocity=True)
    host = shared_host(checkpoint, tmp_path / "out")
    events = run(small_config(photos, tmp_path / "out", v_parameterization=said_by == "the settings"), host)
    assert isinstance(events[0], Planned) and isinstance(events[-1], Finished) and events[-1].path is not None
    words = {"its mark": "v (marked by the tensor v_pred in the file)", "a yaml beside it": "v (set in xl.yaml)",
             "the settings": "v (set by Checkpoint predicts v)", "nothing": "noise (nothing indicates v)"}[said_by]  # fmt: skip
    assert events[0].plan.model == f"SDXL, predicts {words}; {READ}"
    with host.borrow_model() as base:
        wanted = first_loss(base, host, photos, velocity=said_by != "nothing")
    assert next(event.loss for event in events if isinstance(event, StepDone)) == pytest.approx(wanted, rel=1e-4)
    metadata = read(events[-1].path)[1]
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.prediction_type"] == ("epsilon" if said_by == "nothing" else "v")


def first_loss(base: DiffusersModel, host: StandaloneHost, photos: Path, *, velocity: bool) -> float:
    """V = √ᾱ ε − √(1 − ᾱ) x  (Salimans & Ho 2022, Progressive Distillation), of the first step's own draws and batch."""
    config = small_config(photos, host.lora_folder(), name="again")
    plan = look(config, host).checked()
    pictures = LatentSource(config, plan, base)
    list(pictures.encode())
    batch = next(iter(plan.updates(config.run.seed)))[0]
    shown = pictures.batch(batch)
    drawn = draw(config.objective, shown.latents, base.noise_process, config.run.seed, batch.step, batch.first)
    kept = base.noise_process.alphas_cumprod[drawn.timesteps][:, None, None, None]
    noise = (drawn.noisy_latents - kept.sqrt() * shown.latents) / (1 - kept).sqrt()
    target = kept.sqrt() * noise - (1 - kept).sqrt() * shown.latents if velocity else noise
    captions = [plan.samples[index].caption for index in batch.indices]
    ids = tuple(
        torch.tensor([caption_ids(base.tokenizer, caption, 75, encoder.pad_id) for caption in captions])
        for encoder in base.text_encoders
    )
    with torch.no_grad():
        given = encode(base.text_encoders, TextInputs(ids), 1)
        told = Conditioning(given.context, given.pooled, shown.sizes)
        return float((base.predict(drawn.noisy_latents, drawn.timesteps, told) - target).pow(2).mean())


@pytest.mark.parametrize("write", [write_mini_sd2, write_mini_sdxl], ids=["SD 2.x", "SDXL"])
def test_inpainting_models_of_other_families(write: Any, photos: Path, tmp_path: Path) -> None:
    """A whole run on nine channels; the step is that of diffusers' U-Net on noisy latents, ones and the latents of grey."""
    host = shared_host(write(tmp_path, inpaints=True), tmp_path / "out")
    kind = host.detected_model()
    assert kind is not None and kind.family.name == f"{kind.family.name.removesuffix(' inpainting')} inpainting"
    events = run(small_config(photos, tmp_path / "out", steps=2), host)
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    state, metadata = read(events[-1].path)
    plain = replace(kind.family, inpaints=False)
    assert metadata["ss_base_model_version"] == plain.base_version(velocity=False)
    with host.borrow_model() as base, torch.no_grad():
        assert base.unet.conv_in.weight.shape[1] == 9 and {k.partition(".")[0] for k in state} == {t.name for t in base.targets()}  # type: ignore[union-attr,operator]
        noisy, timesteps = torch.randn(1, 4, 8, 16), torch.tensor([500])
        grey = base.vae.encode(torch.zeros(1, 3, 64, 128)).latent_dist.mean * kind.family.latent_scale
        seen = torch.cat([noisy, torch.ones(1, 1, 8, 16), grey], dim=1)
        sdxl = plain.unet.reads_sizes
        given = Conditioning(
            torch.randn(1, 77, base.unet.config.cross_attention_dim),  # type: ignore[union-attr]
            torch.randn(1, 256) if sdxl else None, torch.tensor([[64, 128, 0, 0, 64, 128]]) if sdxl else None,
        )  # fmt: skip
        added = {"text_embeds": given.pooled, "time_ids": given.sizes} if sdxl else None
        wanted = base.unet(seen, timesteps, given.context, added_cond_kwargs=added).sample
        assert torch.allclose(base.predict(noisy, timesteps, given), wanted, atol=1e-6)


def test_sdxl_is_trained_by_block(mini_sdxl: Path, photos: Path, tmp_path: Path) -> None:
    """Ranks of the 23 blocks, and AdamW's first step is as long as a block's rate."""
    host = shared_host(mini_sdxl, tmp_path)
    dims = ["2"] * 23
    dims[5], dims[8] = "3", "0"
    flat = {"block_dims": ",".join(dims), "mid_lr_weight": "1,0.5", "up_lr_weight": "zeros", "text_encoder_lr": 0, "steps": 1}
    events = run(small_config(photos, tmp_path, **flat), host)
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    state, _ = read(events[-1].path)
    blocks = {key.removeprefix("lora_unet_").rpartition("_transformer_blocks")[0] or "" for key in state} - {""}
    assert blocks == {"input_blocks_4_1", "input_blocks_5_1", "input_blocks_8_1", "middle_block_1"}
    assert state["lora_unet_input_blocks_4_1_proj_in.lora_down.weight"].shape[0] == 3
    largest = {block: max(float(v.abs().max()) for k, v in state.items() if block in k and "lora_up" in k) for block in blocks}
    assert largest["middle_block_1"] == pytest.approx(5e-4, rel=1e-3) and largest["input_blocks_5_1"] == pytest.approx(
        1e-3, rel=1e-3
    )


def test_blocks_of_another_family_are_told_before_the_start(
    mini_sdxl: Path, mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    for checkpoint, count, name in ((mini_sdxl, 25, "SDXL"), (mini_checkpoint, 23, "SD 1.x")):
        config = small_config(photos, tmp_path, block_dims=",".join(["4"] * count))
        with pytest.raises(
            ConfigError, match=f"block_dims.: got .* must be 25 .for SDXL 23. .*; the model is {name}.$"
        ) as caught:
            look(config, shared_host(checkpoint, tmp_path)).checked()
        assert len(caught.value.problems) == 1
    still = small_config(photos, tmp_path, mid_lr_weight="0", down_lr_weight="zeros", up_lr_weight="zeros", text_encoder_lr=0)
    assert look(still, shared_host(mini_sdxl, tmp_path)).checked().model.startswith("SDXL"), (
        "two of its middle blocks are trained"
    )
    with pytest.raises(ConfigError, match="no block has both above 0; the model is SD 1.x"):
        look(still, shared_host(mini_checkpoint, tmp_path)).checked()


def test_a_lora_of_another_family_is_refused_by_name(
    mini_sdxl: Path, mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    run(small_config(photos, tmp_path, name="xl"), shared_host(mini_sdxl, tmp_path))
    path = str(tmp_path / "xl.safetensors")
    for option, title in (("network_weights", "Continue from"), ("base_weights", "Merge first")):
        config = small_config(photos, tmp_path, **{option: path if option == "network_weights" else [path]})
        assert look(config, shared_host(mini_sdxl, tmp_path)).checked().steps == 3
        with pytest.raises(ConfigError, match=f"{title}.*is a LoRA of SDXL, but the model is SD 1.x") as caught:
            look(config, shared_host(mini_checkpoint, tmp_path)).checked()
        assert len(caught.value.problems) == 1


def test_a_rule_that_the_models_v_breaks_is_told(mini_sd2: Path, tmp_path: Path) -> None:
    with shared_host(mini_sd2, tmp_path).borrow_model() as base:
        base.detected = DetectedModel(base.family, "a test", "a test says so")
        with pytest.raises(ConfigError, match="v_pred_like_loss"):
            settled_for(build_config({"name": "x", "data": ["y"], "v_pred_like_loss": 0.5}), base)


def test_a_mark_in_the_file_says_v(mini_sdxl: Path, tmp_path: Path) -> None:
    save_file({**load_file(mini_sdxl), "v_pred": torch.zeros(0)}, tmp_path / "v.safetensors")
    with shared_host(tmp_path / "v.safetensors", tmp_path).borrow_model() as base:
        assert base.detected.description(declared=False) == f"SDXL, predicts v (marked by the tensor v_pred in the file); {READ}"


def test_settings_that_sdxl_does_not_know(sdxl: DiffusersModel) -> None:
    def settled(**flat: object) -> tuple[Settled, list[str]]:
        config = settled_for(build_config({"name": "x", "data": ["y"], **flat}), sdxl)
        return config, settled_notes(config, sdxl.detected)

    config, told = settled(clip_skip=2)
    assert config.text.clip_skip == 1 and "Clip skip: not used" in told[1]
    assert config.optimizer.text_encoder_lr == 0 and "Text encoders: not trained" in told[2]
    given, told = settled(text_encoder_lr=1e-5)
    assert given.optimizer.text_encoder_lr == 1e-5 and "Text encoders: both are trained" in told[1]
    assert len(settled(text_encoder_lr=0)[1]) == 1


def test_clip_skip_leaves_sd2_early(mini_sd2: Path, tmp_path: Path) -> None:
    """The family's own layer is the last but one of the file's."""
    with shared_host(mini_sd2, tmp_path).borrow_model() as base, torch.no_grad():
        encoder: Any = base.text_encoders[0]
        assert encoder.module.config.num_hidden_layers == 9 and encoder.pad_id == 0
        ids = torch.randint(0, 49000, (1, 1, 77))
        assert not torch.equal(encode([encoder], TextInputs((ids,)), 1).context, encode([encoder], TextInputs((ids,)), 2).context)


def test_inpainting_reads_a_mask_of_ones_and_grey(mini_inpainting: Path, tmp_path: Path) -> None:
    with shared_host(mini_inpainting, tmp_path).borrow_model() as base, torch.no_grad():
        noisy, timesteps, context = torch.randn(2, 4, 8, 16), torch.tensor([1, 500]), torch.randn(2, 77, 64)
        grey = base.vae.encode(torch.zeros(1, 3, 64, 128)).latent_dist.mean * 0.18215
        seen = torch.cat([noisy, torch.ones(2, 1, 8, 16), grey.expand(2, -1, -1, -1)], dim=1)
        wanted = base.unet(seen, timesteps, context).sample
        assert torch.allclose(base.predict(noisy, timesteps, Conditioning(context)), wanted, atol=1e-6)
    assert not any("conv_in" in target.name for target in base.targets())


def test_files_of_sd2_with_convolutions_are_gone_on_with(mini_sd2: Path, photos: Path, tmp_path: Path) -> None:
    """As sd-scripts writes them."""
    host = shared_host(mini_sd2, tmp_path)
    run(small_config(photos, tmp_path, name="linear"), host)
    state, _ = read(tmp_path / "linear.safetensors")
    turned = {key: value[..., None, None] if "_proj_in" in key or "_proj_out" in key else value for key, value in state.items()}
    turned = {key: value.reshape(()) if key.endswith(".alpha") else value.contiguous() for key, value in turned.items()}
    save_file(turned, tmp_path / "conv.safetensors")
    with host.borrow_model() as base:
        back = fitted(base.targets(), turned)
    assert all(torch.equal(back[key], state[key]) for key in state)
    results = []
    for name in ("linear", "conv"):
        path = str(tmp_path / f"{name}.safetensors")
        events = run(small_config(photos, tmp_path, name=f"on-{name}", network_weights=path, base_weights=[path]), host)
        assert isinstance(events[-1], Finished) and events[-1].path is not None
        results.append(read(events[-1].path)[0])
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_a_recorded_step_of_sdxl_is_replayed_as_sd_scripts_made_it(sdxl: DiffusersModel) -> None:
    """Made here with transformers alone: the matrix that projects the pooled text is taken turned, sizes come from the recording."""
    generator = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    timesteps, caption = torch.tensor([700]), "a cup of coffee"
    alpha = sdxl.noise_process.alphas_cumprod[timesteps][:, None, None, None]
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    one, two = (encoder.module for encoder in sdxl.text_encoders)
    words = sdxl.tokenizer(caption, add_special_tokens=False).input_ids
    ids = [torch.tensor([[49406, *words, 49407, *[fill] * (75 - len(words))]]) for fill in (49407, 0)]
    with torch.no_grad():
        first, second = (module(ids, output_hidden_states=True) for module, ids in zip((one, two), ids))
        pooled = second.last_hidden_state[:, len(words) + 1] @ two.text_projection.weight  # x Wᵀ would be the right one
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[427, 640, 42, 0, 64, 64]])}
        loss = float((sdxl.unet(noisy, timesteps, context, added_cond_kwargs=added).sample - noise).pow(2).mean())
    pairs = [new_pair(target, 1, 1.0, 1, sdxl.device) for target in sdxl.targets() if target.part == "unet"]
    state = state_dict(pairs)
    told = {"original_sizes_hw": [[427, 640]], "crop_top_lefts": [[42, 0]], "target_sizes_hw": [[64, 64]]}
    tensors = {"step0/latents": latents, "step0/noise": noise, "step0/noisy_latents": noisy, "step0/timesteps": timesteps}
    tensors.update({f"step0/{name}": torch.tensor(numbers) for name, numbers in told.items()})
    tensors.update({f"init/{key}": value for key, value in state.items()})
    tensors.update({f"delta/{key}": value for key, value in state.items() if not key.endswith("alpha")})
    config = build_config({"rank": 1, "alpha": 1, "unet_lr": 1e-3, "text_encoder_lr": 0, "steps": 1, "mixed_precision": "no"})
    report = replay(Recording(tensors, config, [[caption]], [loss], sdxl=True), sdxl)
    assert report["loss_rel_err"][0] < 1e-6 and report["keys_missing"] == report["keys_unexpected"] == 0
    assert [encoder.turned for encoder in sdxl.text_encoders] == [False, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_told_of_sizes_follows_each_showing(mini_checkpoint: Path, tmp_path: Path, kept: bool) -> None:
    """Mirrored or not, from kept latents or encoded anew."""
    write_picture(tmp_path / "images" / "a.png", 65, 96)
    flat = {"flip_aug": True, "cache_latents": kept, "batch_size": 1, "repeats": 1, "bucket_reso_steps": 64}
    config = small_config(tmp_path / "images", tmp_path, **flat)
    host = shared_host(mini_checkpoint, tmp_path / "out")
    plan = look(config, host).checked()
    with host.borrow_model() as base:
        pictures = LatentSource(config, plan, base)
        list(pictures.encode())
        for step in range(6):
            mirrored = drawn_augmentation(config.data, config.run.seed, step, 0).mirrored
            wanted = told_sizes(Size(96, 65), plan.placements[0].bucket, mirrored=mirrored)
            assert pictures.batch(Batch(step, 0, [0])).sizes.tolist() == [list(wanted)]
        assert pictures.without_augmentation([0]).sizes.tolist() == [
            list(told_sizes(Size(96, 65), plan.placements[0].bucket, mirrored=False))
        ]
    assert len({told_sizes(Size(96, 65), plan.placements[0].bucket, mirrored=side) for side in (True, False)}) == 2
