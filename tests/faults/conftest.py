"""The host of the fault tests: the standalone host, or in the pins lane the webui host on ldm's classes.

With `--faults gpu` the standalone host is on CUDA, with deterministic kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import small_config
from tests.faults.kills import SMALL
from tests.house import HAS_LDM, House, house_as_before

collect_ignore = (
    ["test_kills.py", "test_leaving.py"]  # the webui has no part in files on a disk: the standalone host's lane does it
    if HAS_LDM
    else ["test_giving_back.py", "test_strangers.py"]  # of what the webui lends and is asked
)

if HAS_LDM:
    from tests.pins.webui_double import as_webui_holds_it, install, load_ldm

    @pytest.fixture(scope="session")
    def ldm(mini_checkpoint: Path) -> Any:
        return as_webui_holds_it(load_ldm(mini_checkpoint), mini_checkpoint)

    @pytest.fixture
    def host(ldm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        install(monkeypatch, ldm, tmp_path)
        from lib_lora.hosts.webui_host import WebuiHost

        return WebuiHost()

else:
    from lib_lora.hosts.standalone import StandaloneHost

    @pytest.fixture(scope="session")
    def device(request: pytest.FixtureRequest) -> torch.device:
        """The host's device."""
        if request.config.getoption("--faults") != "gpu":
            return torch.device("cpu")
        torch.use_deterministic_algorithms(True, warn_only=True)
        return torch.device("cuda")

    def load_once(checkpoint: Path, out: Path, device: torch.device) -> Any:
        """A model that hosts can share."""
        with StandaloneHost(checkpoint, out, device).borrow_model() as base:
            for encoder in base.text_encoders:  # newer transformers hang hooks of their own on when they are first asked so
                encoder.module(torch.zeros(1, 77, dtype=torch.long, device=device), output_hidden_states=True)
            return base

    @pytest.fixture(scope="session")
    def loaded(mini_checkpoint: Path, device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Any:
        """The model, loaded once."""
        return load_once(mini_checkpoint, tmp_path_factory.mktemp("unused"), device)

    @pytest.fixture
    def host(loaded: Any, mini_checkpoint: Path, device: torch.device, tmp_path: Path) -> Any:
        found = StandaloneHost(mini_checkpoint, tmp_path / "out", device)
        found._model = loaded
        return found


@pytest.fixture
def house(host: Any) -> Iterator[House]:
    """Trains, and is checked to be as before at the end of the test."""
    with house_as_before(host) as house:
        yield house


@pytest.fixture
def quick(photos: Path, tmp_path: Path) -> Any:
    """Makes settings of a run of half a second, with changes."""

    def config(**changes: object) -> Any:
        flat = {**SMALL, "train_layers": "cross-attention", "text_encoder_lr": 0, "rank": 1, "steps": 2, **changes}
        return small_config(photos, tmp_path, **flat)

    return config
