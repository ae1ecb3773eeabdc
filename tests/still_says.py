"""What a later afftool says beside what an earlier one said."""

from __future__ import annotations

from typing import Any


def assert_still_says(now: Any, then: Any, where: str = "") -> None:
    """Everything of `then` is in `now`, in the same order; what `now` has besides is null."""
    if isinstance(then, dict):
        assert [key for key in now if key in then] == list(then), where
        for key, value in now.items():
            if key in then:
                assert_still_says(value, then[key], f"{where}.{key}")
            else:
                assert value is None, f"{where}.{key}"
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for number, pair in enumerate(zip(now, then, strict=True)):
            assert_still_says(*pair, f"{where}[{number}]")
    else:
        assert now == then, where
        assert type(now) is type(then), where
