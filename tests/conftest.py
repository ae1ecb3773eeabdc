"""One thread and a fixed seed for every test, so that results depend on neither the machine nor the order."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _seeded_and_single_threaded() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
