"""One thing that holds for the whole process: what it is called, how it is read, written and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One thing that holds for the whole process. `read` gives a value that later changes leave alone."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    show: Callable[[Any], str] | None = None
    """A value in words, where its own are none."""

    def said(self, before: Any, now: Any) -> str:
        """What became of it: `off instead of on`."""
        show = self.show or word
        if isinstance(now, Mapping):
            keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            return ", ".join(f"{key} {word(now.get(key))} instead of {word(before.get(key))}" for key in keys)
        return f"{show(now)} instead of {show(before)}"


def attribute(holder: Any, name: str, words: str) -> Setting:
    """An attribute of something as a setting, called `words`."""
    return Setting(words, lambda: getattr(holder, name, None), partial(setattr, holder, name))


def word(value: Any) -> str:
    """A value as people say it: `on`, `unset`, `float16`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "unset" if value is None else str(value).removeprefix("torch.")


def some(value: Any) -> str:
    """Whether there is any, of what has no words of its own."""
    return "some" if value else "none"
