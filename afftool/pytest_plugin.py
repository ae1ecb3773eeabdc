"""The `fusion_gate` fixture for pytest: limits on what a fusion costs, next to the tests of what it computes.

    def test_gate(fusion_gate):
        fusion_gate("mypkg.gates:MyGate", channels=64, size=56, params=4576, macs_max=2_900_000_000)

pytest imports this file wherever afftool is installed, so it holds no more than the fixture: nothing else of afftool is
imported until a test asks for the fixture and calls it (`afftool.gate.fixture`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from afftool.gate.fixture import FusionGate


@pytest.fixture(scope="session")
def fusion_gate() -> FusionGate:
    """Check what a fusion costs, exactly: `fusion_gate("aff", channels=64, size=56, params=8832)`."""
    return _fusion_gate


def _fusion_gate(fusion: str, /, **wanted: Any) -> Mapping[str, float]:
    __tracebackhide__ = True
    from afftool.gate.fixture import check_cost

    return check_cost(fusion, **wanted)
