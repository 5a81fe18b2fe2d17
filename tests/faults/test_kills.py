"""kill -9: nothing unreadable under a final name, and the run goes on bit for bit."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_lora.hosts.standalone import StandaloneHost
from tests.conftest import write_picture
from tests.faults.kills import SAVING, Campaign

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def campaign(loaded: Any, mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    folder = tmp_path_factory.mktemp("kills")
    for number in range(2):
        write_picture(folder / "photos" / "2_blob" / f"{number}.png", 64, 64, seed=number)

    def make_host(out: Path) -> StandaloneHost:
        host = StandaloneHost(mini_checkpoint, out)
        host._model = loaded
        return host

    return Campaign(make_host, folder / "photos", folder)


@pytest.mark.case(28, 30)
@pytest.mark.timeout(0)
def test_killed_at_random_moments(campaign: Campaign, long: bool, figure: Figure) -> None:
    """Killed at random moments; nothing unreadable, gone on from the newest state to the same losses and tensors."""
    wanted, rng = 200 if long else 20, random.Random(28)
    before = campaign.resumed
    for _ in range(wanted):
        campaign.kill_at_random(rng)
    figure(f"{campaign.resumed - before} of {wanted}")


@pytest.mark.case(29, 30)
@pytest.mark.timeout(0)
def test_killed_at_every_operation_of_one_save(campaign: Campaign, long: bool, figure: Figure) -> None:
    """Killed at every write, fsync and rename of one save of LoRA, card and state; gone on from bit for bit."""
    points = campaign.points()
    chosen = [number for number, (step, what) in enumerate(points) if step == 2 and (long or what.startswith(SAVING))]
    assert sum(what == "write" for step, what in points if step == 2) == 4 and len(chosen) > 24
    before = campaign.resumed
    for number in chosen:
        campaign.kill_at_point(number)
    figure(f"{campaign.resumed - before} of {len(chosen)}")


@pytest.mark.case(29, 30)
@pytest.mark.timeout(0)
def test_killed_while_saving(campaign: Campaign, long: bool, figure: Figure) -> None:
    """Killed in random operations of all saves, in the middle of a write at a random byte; gone on from bit for bit."""
    if not long:
        pytest.skip("in make faults")
    points, rng, before = campaign.points(), random.Random(29), campaign.resumed
    for _ in range(500):
        campaign.kill_at_point(rng.randrange(len(points)))
    figure(f"{campaign.resumed - before} of 500")
