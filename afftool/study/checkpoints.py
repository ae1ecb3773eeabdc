"""Where a cell's last epoch is kept until its record is safe: one file a cell, replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Checkpoint(Protocol):
    """One cell's place for one checkpoint."""

    def load(self) -> bytes | None:
        """The last one saved, or None."""

    def save(self, packed: bytes) -> None:
        """Keep this one instead."""


class FileCheckpoint:
    """A checkpoint in a file. A kill during `save` leaves the one before."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.path = folder / f"{identity}.pt"

    def load(self) -> bytes | None:
        """The file's content, None if there is no file."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, packed: bytes) -> None:
        """Write beside the file and rename over it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(packed)
        part.replace(self.path)

    def drop(self) -> None:
        """Remove the file, and what killed processes left of it."""
        self.path.unlink(missing_ok=True)
        for part in self.path.parent.glob(f"{self.path.stem}.*.part"):
            part.unlink(missing_ok=True)
