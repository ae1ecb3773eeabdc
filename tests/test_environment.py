import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from afftool import environment
from afftool.record import Environment


def test_the_machine_is_described_and_the_description_survives_storage() -> None:
    here = environment.read()
    assert here.torch
    assert here.cpu
    assert here.cores >= 1
    assert here.threads >= 1
    assert here.memory_bytes
    assert Environment.from_dict(here.to_dict()) == here
    assert environment.read().fingerprint == here.fingerprint


def test_another_thread_count_is_another_machine_and_more_free_memory_is_not() -> None:
    here = environment.read()
    assert dataclasses.replace(here, threads=here.threads + 1).fingerprint != here.fingerprint
    assert dataclasses.replace(here, memory_bytes=1).fingerprint == here.fingerprint


def test_every_check_that_is_not_fine_says_what_to_do() -> None:
    checks = list(environment.checks())
    assert {"torch", "C++ compiler", "CUDA", "triton", "threads"} <= {check.name for check in checks}
    for check in checks:
        assert check.found
        assert check.advice or check.state == "ok", check


def test_a_compiler_named_in_cxx_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    environment.cpp_compiler.cache_clear()
    environment.compiler_version.cache_clear()
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    try:
        assert environment.cpp_compiler() is None
        check = next(check for check in environment.checks() if check.name == "C++ compiler")
        assert check.state == "missing"
        assert "no-such-compiler" in check.found
    finally:
        environment.cpp_compiler.cache_clear()
        environment.compiler_version.cache_clear()


def test_a_loaded_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "load_per_core", lambda: 3.0)
    check = next(check for check in environment.checks() if check.name == "load")
    assert (check.state, "spread" in check.advice) == ("warn", True)


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, afftool.environment, afftool.stats; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
