"""The threads that torch uses for a command: as asked for, or as many as cores are free, and what to say about it."""

from __future__ import annotations

from afftool import console
from afftool.free_cores import Asked, choose, room, told_outside


def use_threads(asked: str | None, device: str, *, timed: bool = True) -> None:
    """Let torch use the threads that `--threads` names, and tell at once if other work is in their way.

    Where nothing is `timed`, and on a GPU, where the CPU only waits, nothing is looked at unless `auto` is asked for.
    """
    import torch

    wanted: Asked = int(asked) if asked and asked != "auto" else "auto" if asked else None
    there = room() if (timed and device == "cpu") or wanted == "auto" else None
    chosen = choose(wanted, torch.get_num_threads(), there, told_outside=told_outside())
    if chosen.number != torch.get_num_threads():
        torch.set_num_threads(chosen.number)
    if chosen.note:
        console.note(chosen.note)
