"""Noise schedule, noising and weights, against diffusers and numbers computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lib_lora.config.objective import HuberSchedule, LossType, ObjectiveConfig
from lib_lora.data.sizes import Size
from lib_lora.families.ddpm import Ddpm, scaled_linear
from lib_lora.objective.extra_noise import multires_sizes, with_offset, with_resolutions
from lib_lora.objective.loss import (
    batch_loss,
    debiased_weight,
    elementwise_error,
    huber_thresholds,
    min_snr_weight,
    noise_schedule,
    sample_weights,
    velocity_scale,
)
from lib_lora.randomness import generator, normal, permutation, uniform
from lib_lora.training.latents import latent_mask
from lib_lora.training.noising import Drawn, draw


def scheduler() -> object:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)


def test_schedule_equals_diffusers() -> None:
    assert torch.equal(scaled_linear().alphas_cumprod, scheduler().alphas_cumprod)
    assert float(scaled_linear().alphas_cumprod[-1]) == pytest.approx(0.0046601, rel=1e-4)


def test_noising_equals_diffusers() -> None:
    latents, noise = torch.randn(5, 4, 6, 7), torch.randn(5, 4, 6, 7)
    timesteps = torch.tensor([0, 1, 500, 998, 999])
    ours = scaled_linear().add_noise(latents, noise, timesteps)
    assert torch.allclose(ours, scheduler().add_noise(latents, noise, timesteps), atol=1e-6)


def test_timesteps_cover_the_range_evenly() -> None:
    drawn = scaled_linear().draw_timesteps(20000, generator(1), 0, 1000)
    assert drawn.min() == 0 and drawn.max() == 999 and abs(float(drawn.float().mean()) - 499.5) < 8


def test_timesteps_stay_in_the_range_that_is_asked_for() -> None:
    drawn = scaled_linear().draw_timesteps(5000, generator(1), 200, 300)
    assert drawn.min() == 200 and drawn.max() == 299


def test_velocity_equals_diffusers() -> None:
    latents, noise, timesteps = torch.randn(3, 4, 6, 7), torch.randn(3, 4, 6, 7), torch.tensor([0, 500, 999])
    ours = scaled_linear().target(latents, noise, timesteps, velocity=True)
    assert torch.allclose(ours, scheduler().get_velocity(latents, noise, timesteps), atol=1e-6)


def test_zero_terminal_snr_equals_diffusers() -> None:
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    theirs = torch.cumprod(1 - scheduling.rescale_zero_terminal_snr(betas), dim=0)
    ours = scaled_linear().with_zero_terminal_snr()
    assert torch.allclose(ours.alphas_cumprod, theirs, atol=1e-5) and ours.alphas_cumprod[-1] == 0
    (noised,) = noise_schedule(ObjectiveConfig(zero_terminal_snr=True), scaled_linear()).tensors()
    assert torch.equal(ours.alphas_cumprod, noised)
    assert noise_schedule(ObjectiveConfig(), ours) is ours


@pytest.mark.parametrize(
    ("loss_type", "wanted"),
    [("l2", [1.0, 9.0]), ("l1", [1.0, 3.0]), ("huber", [2 * 0.5 * (1.25**0.5 - 0.5), 2 * 4 * (25**0.5 - 4)]),
     ("smooth_l1", [2 * (1.25**0.5 - 0.5), 2 * (25**0.5 - 4)])],
)  # fmt: skip
def test_errors_by_hand(loss_type: LossType, wanted: list[float]) -> None:
    pred, target = torch.tensor([[[[1.0]]], [[[4.0]]]]), torch.tensor([[[[0.0]]], [[[1.0]]]])
    error = elementwise_error(pred, target, loss_type, torch.tensor([0.5, 4.0]))
    assert error.flatten().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("huber_schedule", "wanted"),
    [("constant", [0.4, 0.4]), ("exponential", [2.0, 2 * 0.2**0.5]), ("snr", [0.8 / (1 + 1 / 3) ** 2 + 0.2, 0.8 / 4 + 0.2])],
)
def test_huber_thresholds_by_hand(huber_schedule: HuberSchedule, wanted: list[float]) -> None:
    objective = ObjectiveConfig(loss_type="huber", huber_schedule=huber_schedule, huber_c=0.2, huber_scale=2.0)
    alphas = torch.full((1000,), 0.9)
    alphas[500] = 0.5
    assert huber_thresholds(objective, torch.tensor([0, 500]), Ddpm(alphas)).tolist() == pytest.approx(wanted, rel=1e-5)


def test_snr_weights_by_hand() -> None:
    alphas, timesteps = Ddpm(torch.tensor([0.9, 0.5, 0.1])), torch.tensor([0, 1, 2])  # SNR 9, 1, 1/9
    assert alphas.snr(timesteps).tolist() == pytest.approx([9.0, 1.0, 1 / 9])
    assert min_snr_weight(timesteps, alphas, 5.0, velocity=False).tolist() == pytest.approx([5 / 9, 1.0, 1.0])
    assert min_snr_weight(timesteps, alphas, 5.0, velocity=True).tolist() == pytest.approx([0.5, 0.5, 0.1])
    assert debiased_weight(timesteps, alphas, velocity=False).tolist() == pytest.approx([1 / 3, 1.0, 3.0])
    assert debiased_weight(timesteps, alphas, velocity=True).tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert velocity_scale(timesteps, alphas).tolist() == pytest.approx([0.9, 0.5, 0.1])


def test_snr_is_bounded_where_there_is_no_noise() -> None:
    alphas, timesteps = Ddpm(torch.tensor([1 - 1e-7])), torch.tensor([0])
    assert debiased_weight(timesteps, alphas, velocity=False).tolist() == pytest.approx([1000**-0.5])


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, [1.0, 1.0]),
        ({"min_snr_gamma": 3.0}, [1 / 3, 1.0]),
        ({"min_snr_gamma": 3.0, "v_parameterization": True}, [0.3, 0.5]),
        ({"debiased_estimation_loss": True}, [1 / 3, 1.0]),
        ({"debiased_estimation_loss": True, "min_snr_gamma": 3.0}, [1 / 9, 1.0]),
        ({"scale_v_pred_loss_like_noise_pred": True, "v_parameterization": True}, [0.9, 0.5]),
        ({"v_pred_like_loss": 0.5}, [1 + 0.5 / 0.9, 2.0]),
    ],
)
def test_weights_multiply(changes: dict[str, Any], wanted: list[float]) -> None:
    alphas, timesteps = Ddpm(torch.tensor([0.9, 0.5])), torch.tensor([0, 1])  # SNR 9, 1
    assert sample_weights(ObjectiveConfig(**changes), timesteps, alphas).tolist() == pytest.approx(wanted)


def test_batch_loss_is_the_weighted_mean_of_means() -> None:
    alphas = Ddpm(torch.full((1000,), 0.9))
    pred, target = torch.zeros(2, 4, 2, 2), torch.stack([torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 3.0)])
    timesteps = torch.tensor([0, 1])
    assert float(batch_loss(pred, target, timesteps, ObjectiveConfig(), alphas)) == pytest.approx(5.0)
    assert float(batch_loss(pred, target, timesteps, ObjectiveConfig(loss_type="l1"), alphas)) == pytest.approx(2.0)
    assert float(batch_loss(pred, target, timesteps, ObjectiveConfig(min_snr_gamma=3.0), alphas)) == pytest.approx(5.0 / 3)


def test_offset_by_hand() -> None:
    noise, drawn = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0]], [[-2.0]]]])
    latents = torch.tensor([[[[1.0, 3.0]], [[-1.0, -1.0]]]])
    assert with_offset(noise, latents, drawn, 0.1).flatten().tolist() == pytest.approx([0.1, 0.1, -0.2, -0.2])
    adaptive = with_offset(noise, latents, drawn, 0.1, 0.5).flatten().tolist()  # means 2 and 1
    assert adaptive == pytest.approx([1.1, 1.1, -1.2, -1.2])
    assert not with_offset(noise, latents, drawn, 0.1, -0.5).any(), "never below 0"


def test_resolutions_by_hand() -> None:
    assert multires_sizes(Size(16, 24), [0.0, 0.5, 0.0, 0.0, 0.0]) == [(16, 24), (5, 8), (4, 6), (2, 3), (1, 1)]
    assert multires_sizes(Size(16, 24), [1.0] * 9) == [(16, 24), (4, 6), (1, 1)]
    noise, layers = torch.randn(1, 4, 4, 4), [torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 1, 1)]
    assert torch.allclose(with_resolutions(noise, layers, 0.3), (noise + 0.3) / noise.std(), atol=1e-6)


BASE = Ddpm(torch.linspace(0.99, 0.01, 1000))


def drawn(**changes: Any) -> Drawn:
    return draw(ObjectiveConfig(**changes), torch.ones(2, 4, 16, 16), BASE, 5, 3)


def test_a_step_is_drawn_from_seed_and_step_alone() -> None:
    again = drawn()
    assert torch.equal(drawn().noisy_latents, again.noisy_latents) and torch.equal(drawn().timesteps, again.timesteps)
    other = draw(ObjectiveConfig(), torch.ones(2, 4, 16, 16), BASE, 5, 4)
    assert not torch.equal(other.target, again.target) and not torch.equal(other.timesteps, again.timesteps)
    assert torch.allclose(again.noisy_latents, BASE.add_noise(torch.ones(2, 4, 16, 16), again.target, again.timesteps))


@pytest.mark.parametrize(
    "changes",
    [{"noise_offset": 0.5}, {"noise_offset": 0.5, "noise_offset_random_strength": True},
     {"noise_offset": 0.5, "adaptive_noise_scale": 0.5}, {"multires_noise_iterations": 6},
     {"multires_noise_iterations": 6, "multires_noise_discount": 0.9}, {"v_parameterization": True}],
    ids=str,
)  # fmt: skip
def test_each_option_changes_the_target(changes: dict[str, Any]) -> None:
    shorter = dict(list(changes.items())[:-1])
    assert not torch.equal(drawn(**changes).target, drawn(**shorter).target)


@pytest.mark.parametrize(
    "changes",
    [{"ip_noise_gamma": 0.2}, {"ip_noise_gamma": 0.2, "ip_noise_gamma_random_strength": True}, {"zero_terminal_snr": True}],
    ids=str,
)
def test_each_option_changes_what_is_seen_but_not_the_target(changes: dict[str, Any]) -> None:
    shorter = dict(list(changes.items())[:-1])
    assert torch.equal(drawn(**changes).target, drawn().target)
    assert not torch.equal(drawn(**changes).noisy_latents, drawn(**shorter).noisy_latents)


def test_perturbation_has_the_strength_that_is_asked_for() -> None:
    seen, plain = drawn(ip_noise_gamma=0.2), drawn()
    added = (seen.noisy_latents - plain.noisy_latents) / (1 - BASE.alphas_cumprod[plain.timesteps]).sqrt().view(-1, 1, 1, 1)
    assert float(added.std()) == pytest.approx(0.2, rel=0.1)


def test_masks_and_weights_of_samples_as_sd_scripts() -> None:
    recorded = load_file(Path(__file__).parent / "data" / "kohya-augment.safetensors")
    mask = torch.stack([latent_mask(values.numpy(), 8) for values in recorded["mask"]])
    error, zeros, timesteps = recorded["loss"], torch.zeros(2, 4, 3, 2), torch.tensor([100, 900])
    objective, weights = ObjectiveConfig(min_snr_gamma=1.0), torch.tensor([1.0, 0.25])
    wanted = (recorded["masked"].mean(dim=(1, 2, 3)) * weights * sample_weights(objective, timesteps, BASE)).mean()
    found = batch_loss(error.sqrt(), zeros, timesteps, objective, BASE, mask, weights)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    for other in ((None, weights), (mask, None)):
        assert float(batch_loss(error.sqrt(), zeros, timesteps, objective, BASE, *other)) > 1.01 * float(wanted)
    ones = torch.ones(2, 1, 3, 2), torch.ones(2)
    plain = batch_loss(error.sqrt(), zeros, timesteps, objective, BASE)
    assert torch.equal(batch_loss(error.sqrt(), zeros, timesteps, objective, BASE, *ones), plain)


def test_timesteps_may_be_given() -> None:
    latents, given = torch.ones(3, 4, 8, 8), torch.tensor([5, 5, 7])
    one, two = (draw(ObjectiveConfig(), latents, BASE, 1, "held out", first, given) for first in (0, 1))
    assert torch.equal(one.timesteps, given) and torch.equal(one.target[1:], two.target[:2])
    assert not torch.equal(one.target, draw(ObjectiveConfig(), latents, BASE, 1, "other", 0, given).target)


def test_timesteps_of_a_step_stay_in_range() -> None:
    steps = torch.cat([draw(ObjectiveConfig(min_timestep=990, max_timestep=992), torch.ones(2, 4, 1, 1), BASE, 1, s).timesteps
                       for s in range(20)])  # fmt: skip
    assert set(steps.tolist()) == {990, 991}


def test_randomness_is_a_function_of_its_labels() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(normal((3,), 1, "noise", 2), normal((3,), 1, "noise", 2))
    for other in (normal((3,), 2, "noise", 2), normal((3,), 1, "noise", 3), normal((3,), 1, "init", 2)):
        assert not torch.equal(normal((3,), 1, "noise", 2), other)
    assert sorted(permutation(20, 1, "x")) == list(range(20)) != permutation(20, 1, "x")
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_numbers_cover_0_to_1() -> None:
    numbers = [uniform(1, "x", i) for i in range(2000)]
    assert 0 <= min(numbers) < 0.01 and 0.99 < max(numbers) <= 1 and abs(sum(numbers) / 2000 - 0.5) < 0.03
    assert numbers[0] == uniform(1, "x", 0)


def test_noise_is_normal() -> None:
    drawn = normal((100, 1000), 7, "noise")
    assert abs(float(drawn.mean())) < 0.02 and abs(float(drawn.std()) - 1) < 0.02
