"""The house itself, and memory."""

from __future__ import annotations

from typing import Any

import pytest

from lib_lora.events import Finished
from tests.house import House

@pytest.mark.case(43)
def test_a_run_leaves_the_house_as_it_was(house: House, quick: Any) -> None:
    assert house.run(quick(preview_steps=1)).of(Finished)[0].path
