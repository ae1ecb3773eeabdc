"""One real trace for all tests here: a small iaff in training, three steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from afftool.profile.run import Profiled, profile_case
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec

STEPS = 3


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    out = tmp_path_factory.mktemp("profiles")
    return _profile("iaff", out)


@pytest.fixture(scope="session")
def traced_addition(traced: Profiled) -> Profiled:
    return _profile("add", traced.folder.parent)


def _profile(fusion: str, out: Path) -> Profiled:
    spec = CaseSpec(fusion=FusionSpec.parse(fusion), channels=8, size=(6, 6), batch=2, mode="train")
    environment = Environment(afftool="test", python="3")
    return profile_case(spec, "eager", out, formats=["md", "csv"], steps=STEPS, environment=environment)
