"""Every error afftool raises on purpose: what is wrong, what to do, and the exit code it means.

    AfftoolError
    ├── UserError            exit 2   the request cannot be carried out as written
    │   ├── SpecError                 a value or a combination that is not allowed
    │   │   ├── UnknownName           a fusion, host, backend, ... nobody knows
    │   │   └── UnknownKey            a `key=value` the name does not take
    │   ├── ShapeError                feature maps that do not fit together (also a ValueError)
    │   ├── BatchStatisticsError      batch norm over a single value in training (also a ValueError)
    │   ├── LoadError                 a module, checkpoint or file of the user's that cannot be used
    │   ├── DataError                 a dataset that is missing, broken, or does not fit the request
    │   ├── TooLarge                  what cannot fit into this machine's memory; of a row it becomes an oom record
    │   ├── StoreError                a run store that cannot be read or written
    │   └── OutputError               stdout that cannot be written: full, or closed
    ├── BaselineError        exit 5   a baseline that is missing or not comparable
    ├── NothingMeasured      exit 6   every case was skipped or failed
    │   └── DeviceLost                a device that no longer answers this process: what was to come cannot be measured
    ├── ReaderLeft           exit 141 nobody reads stdout any more, as after `| head`: nothing is said
    ├── Unavailable          (no exit) something this machine cannot run: becomes a record with a reason
    └── Rejected             (no exit) a measurement that must not be kept: becomes a failed record

They are caught once, in `afftool.cli`. Exit codes 3 (regression), 4 (inconclusive) and 130 (interrupted) are
outcomes, not errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from afftool.masked import told


class AfftoolError(Exception):
    """Something went wrong that the reader can understand: a message and, where there is one, a hint.

    What others say may be part of it: secrets are masked, and what is too long is cut.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = told(message)
        self.hint = hint and told(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UserError(AfftoolError):
    """The request cannot be carried out as it is written."""

    exit_code = 2


class SpecError(UserError):
    """A value, or a combination of values, that is not allowed."""


class UnknownName(SpecError):
    """A name that is in no catalog."""


class UnknownKey(SpecError):
    """A `key=value` that the named thing does not take."""


class ShapeError(UserError, ValueError):
    """Feature maps whose shapes do not fit the module or each other. Nothing is ever broadcast to fit."""


class BatchStatisticsError(UserError, ValueError):
    """Batch normalisation would have to estimate statistics from one value a channel."""


class LoadError(UserError):
    """A module, a checkpoint or a file of the user's that cannot be used."""


class DataError(UserError):
    """A dataset that is missing, broken or mislabelled, or that does not fit what was asked of it."""


class TooLarge(UserError):
    """What cannot fit into the memory that is free: refused before any of it is taken."""


class StoreError(UserError):
    """A run store that cannot be read or written."""


class OutputError(UserError):
    """stdout cannot be written."""


class BaselineError(AfftoolError):
    """A baseline that is missing or cannot be compared with."""

    exit_code = 5


class NothingMeasured(AfftoolError):
    """Every requested case was skipped or failed."""

    exit_code = 6


class DeviceLost(NothingMeasured):
    """A device that no longer answers this process, or never did: only a fresh process can use it, if any."""


class ReaderLeft(AfftoolError):
    """Nobody reads stdout any more, so there is nobody to say anything to; a shell counts 128 and SIGPIPE's number."""

    exit_code = 141


class Unavailable(AfftoolError):
    """Something that cannot run on this machine; it is recorded as skipped, with this message as the reason."""


class Rejected(AfftoolError):
    """A measurement that must not be kept, such as a result unlike eager's: it is recorded as failed."""


_OUT_OF_MEMORY = (
    *("DefaultCPUAllocator", "CUDA out of memory", "CUDA error: out of memory"),
    *("Storage size calculation overflowed", "Overflow when unpacking long"),  # more than any memory can have
)


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, on the device or here, or would have, or did where an error of ours came from.

    torch's own class is known by its name.
    """
    if error is None:
        return False
    if any(kind.__name__ in ("OutOfMemoryError", "MemoryError") for kind in type(error).__mro__):
        return True
    if isinstance(error, AfftoolError):
        return isinstance(error, TooLarge) or ran_out_of_memory(error.__cause__)
    try:
        text = str(error)
    except Exception:  # a class of the user's own may not be able to say
        return False
    return any(words in text for words in _OUT_OF_MEMORY)


@contextmanager
def told_where(where: str) -> Iterator[None]:
    """An error of ours inside says where what it is about stands: the table of a file, for example."""
    try:
        yield
    except AfftoolError as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from error
