"""Which images are held out, and when the validation loss is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_lora.config.groups import build_config
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.data.dataset import Dataset, Sample
from lib_lora.data.order import held_out
from lib_lora.data.sizes import Size
from lib_lora.model.base import ModelInfo
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.plan import Plan, make_plan
from lib_lora.settle import settle
from lib_lora.training.cadence import heldout_due
from lib_lora.training.precision import Precision
from lib_lora.training.trainer import heldout_batches, heldout_timesteps


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), share=st.floats(0.0, 0.9), seed=st.integers(0, 99))
def test_never_all_and_never_none(sizes: list[int], share: float, seed: int) -> None:
    chosen = held_out(sizes, share, seed)
    assert chosen == held_out(sizes, share, seed) and len(set(chosen)) == len(chosen)
    assert all(0 <= image < sizes[folder] for folder, image in chosen)
    if share > 0 and sum(sizes) >= 2:
        assert 1 <= len(chosen) < sum(sizes)
    else:
        assert chosen == []


def test_each_folder_gives_its_share() -> None:
    chosen = held_out([10, 20], 0.2, 1)
    assert [sum(folder == wanted for folder, _ in chosen) for wanted in (0, 1)] == [2, 4]
    assert chosen != held_out([10, 20], 0.2, 2)


def plan_of(count: int = 6, reg: int = 0, **flat: object) -> Plan:
    sizes = [Size(64, 64), Size(64, 128)]
    samples = [Sample(Path("data") / f"{i}.png", "x", 2, sizes[i % 2], False) for i in range(count)]
    samples += [Sample(Path("reg") / f"{i}.png", "x", 1, sizes[0], False, is_reg=True) for i in range(reg)]
    config = build_config({"resolution": 64, "min_bucket_reso": 64, "validation_split": 0.34, **flat})
    return make_plan(config, Dataset(tuple(samples), (), (), ()))


def test_held_out_images_are_not_trained_on() -> None:
    plan = plan_of(reg=3)
    assert len(plan.heldout) == 2 and not set(plan.heldout) & set(plan.trained) and max(plan.heldout) < 6
    seen = [index for update in plan.updates(1) for batch in update for index in batch.indices]
    assert set(seen) == set(plan.trained) and len(plan.learned) == 4 and len(seen) == plan.steps == 16 * plan.epochs
    assert plan.formula.startswith(
        "4 images, 8 per epoch with repeats; 2 more for validation; plus 3 regularisation images, 8 per epoch"
    )
    assert plan_of(validation_split=0.0).heldout == ()


def test_the_seed_decides() -> None:
    assert plan_of(seed=1).heldout == plan_of(validation_seed=1).heldout
    assert len({plan_of(seed=seed).heldout for seed in range(9)}) > 2
    assert len({plan_of(seed=seed, validation_seed=5).heldout for seed in range(9)}) == 1


@pytest.mark.parametrize(
    ("flat", "wanted"),
    [
        ({}, [4, 8, 10]),
        ({"validate_every_n_epochs": 2}, [8, 10]),
        ({"validate_every_n_epochs": 0}, [10]),
        ({"validate_every_n_epochs": 0, "validate_every_n_steps": 3}, [3, 6, 9, 10]),
        ({"validate_every_n_steps": 3}, [3, 4, 6, 8, 9, 10]),
        ({"validation_split": 0.0, "validate_every_n_steps": 3}, []),
    ],
)
def test_when_it_is_measured(flat: dict[str, object], wanted: list[int]) -> None:
    flat = {"batch_size": 2, "steps": 10, "repeats": 1, **flat}
    plan, data = plan_of(**flat), build_config(flat).data
    assert plan.steps_per_epoch == (4 if plan.heldout else 6)
    assert [step for step in range(1, 11) if heldout_due(data, plan, step)] == wanted


def test_what_is_measured() -> None:
    data = build_config({"batch_size": 2}).data
    plan = plan_of(10, validation_split=0.6, batch_size=2)
    batches = list(heldout_batches(data, plan))
    assert sorted(index for batch in batches for index in batch.indices) == sorted(plan.heldout) and len(plan.heldout) == 6
    assert all(len({plan.placements[index].bucket for index in batch.indices}) == 1 for batch in batches)
    places = [batch.first + i for batch in batches for i in range(len(batch.indices))]
    assert places == list(range(6))
    limited = build_config({"batch_size": 2, "max_validation_steps": 2}).data
    assert list(heldout_batches(limited, plan)) == batches[:2]


def test_timesteps_as_sd_scripts() -> None:
    assert heldout_timesteps(ObjectiveConfig()) == [200, 400, 600, 800]  # np.linspace(0, 1000, 6, dtype=int)[1:-1]
    assert heldout_timesteps(ObjectiveConfig(min_timestep=101, max_timestep=507)) == [182, 263, 344, 425]


def test_metadata() -> None:
    flat = {"validation_split": 0.34, "validation_seed": 3, "validate_every_n_steps": 5, "name": "x", "resolution": 64,
            "min_bucket_reso": 64, "max_validation_steps": 2, "validate_every_n_epochs": 1}  # fmt: skip
    facts = RunFacts(1e9, 5, 1, Precision("no", torch.float32), "AdamW")
    found = file_metadata(
        settle(build_config({**flat, "text_encoder_lr": 0}), None), plan_of(**flat), ModelInfo("m", None, None), facts, {}
    )
    wanted = {"ss_validation_split": "0.34", "ss_validation_seed": "3", "ss_validate_every_n_steps": "5", "ss_num_train_images": "8",
              "ss_max_validation_steps": "2", "ss_validate_every_n_epochs": "1", "ss_num_validation_images": "2"}  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
