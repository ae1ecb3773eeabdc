"""One real trace for all tests here: a small iaff in training, three steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from afftool.profile.run import Profiled, profile_cases
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec

STEPS = 3


def small(fusion: str, **settings: object) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), channels=8, size=(6, 6), batch=2, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    out = tmp_path_factory.mktemp("profiles")
    cases = [(small("iaff", mode="train"), "eager")]
    return next(profile_cases(cases, out, formats=["md", "csv"], steps=STEPS, environment=_environment()))


@pytest.fixture(scope="session")
def traced_addition(traced: Profiled) -> Profiled:
    cases = [(small("add", mode="train"), "eager")]
    out: Path = traced.folder.parent
    return next(profile_cases(cases, out, formats=["md", "csv"], steps=STEPS, environment=_environment()))


def _environment() -> Environment:
    return Environment(afftool="test", python="3")
