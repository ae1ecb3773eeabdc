import json
import sysconfig
from pathlib import Path

import pytest
import torch

from afftool.errors import Rejected, Unavailable
from afftool.failure import FailedError, Failure


def outcome(error: BaseException) -> tuple[str, str]:
    failure = Failure.of(error)
    return failure.status, failure.reason


def test_each_kind_of_error_becomes_its_status() -> None:
    assert outcome(Unavailable("no GPU", hint="buy one")) == ("skipped", "no GPU (hint: buy one)")
    assert outcome(Rejected("differs")) == ("failed", "differs")
    told = FailedError(Failure(kind="OutOfMemoryError", message="full", out_of_memory=True, hint="less"))
    assert outcome(told) == ("oom", "out of memory: full (hint: less)")
    assert outcome(torch.OutOfMemoryError("CUDA out of memory. Tried"))[0] == "oom"
    assert outcome(torch.AcceleratorError("CUDA error: out of memory\nand so on"))[0] == "oom", "not by the allocator"
    assert outcome(MemoryError())[0] == "oom"
    assert outcome(ZeroDivisionError()) == ("failed", "ZeroDivisionError: no message")


def test_the_reason_of_a_compiler_is_not_only_that_it_raised_something() -> None:
    status, reason = outcome(RuntimeError("backend='inductor' raised:\nCppCompileError: no such header\nmore"))
    assert status == "failed"
    assert reason == "RuntimeError: backend='inductor' raised: CppCompileError: no such header"


def test_the_reason_names_the_line_of_the_users_code() -> None:
    def users() -> None:
        torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError) as caught:
        users()
    assert f"{__file__}:" in outcome(caught.value)[1]


def test_the_line_that_called_the_standard_library_is_named_and_not_the_librarys(tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert f"({__file__}:" in outcome(caught.value)[1]
    own = tmp_path / "site-packages" / "mine.py"
    installed = Path(sysconfig.get_paths()["stdlib"]) / "site-packages" / "mine.py"
    for file in (own, installed):
        with pytest.raises(ZeroDivisionError) as divided:
            exec(compile("1 / 0", str(file), "exec"))
        assert f"{file}:1" in outcome(divided.value)[1]
