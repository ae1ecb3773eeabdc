"""Which device a case runs on, from the word for it."""

from __future__ import annotations

import re

from afftool.errors import SpecError


def check_device(word: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N`, as it was given. Raises `SpecError`; imports nothing."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", word):
        raise SpecError(f"{word!r} is not a device", hint="use auto, cpu, cuda or cuda:0")
    return word


def count_gpus() -> int:
    """How many CUDA devices torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_index(device: str) -> int:
    """Which GPU a device is: 1 for `cuda:1`, and 0, the first, for one that names none."""
    return int(device.partition(":")[2] or 0)


def resolve_device(word: str) -> str:
    """The device as torch knows it: `auto` is the first GPU, or the CPU. Raises `SpecError` if it is not there."""
    check_device(word)
    if word == "cpu":
        return word
    count = count_gpus()
    if word == "auto":
        return "cuda:0" if count else "cpu"
    index = gpu_index(word)
    if index >= count:
        found = f"only {count} CUDA device{'s' if count > 1 else ''} here" if count else "no CUDA device here"
        raise SpecError(f"--device {word}: there is {found}", hint="use --device auto or cpu; see `afftool doctor`")
    return f"cuda:{index}"


def resolve_devices(word: str) -> str:
    """As `resolve_device`, but plain `cuda`, which is every GPU, where no index was named. Raises `SpecError`."""
    device = resolve_device(word)
    return device if ":" in word else device.partition(":")[0]
