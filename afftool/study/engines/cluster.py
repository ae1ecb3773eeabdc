"""What a Ray cluster can carry, asked before any work: a task that no node has room for would wait forever."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from afftool.errors import LoadError, SpecError
from afftool.received import json_of

_ADDRESS = re.compile(r"auto|(?:ray://)?(?P<host>\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_REACH_S, _ANSWER_S = 5.0, 60.0
_HINT = "start one with `ray start --head`, or leave --address out to start one here"
_ASK = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps(ray.nodes(), default=str))
"""


@dataclass(frozen=True)
class Node:
    """What one node of a cluster has in all, busy or not."""

    cpus: float
    gpus: float = 0.0


def nodes_alive(described: Iterable[dict[str, Any]]) -> list[Node]:
    """The living nodes among those that `ray.nodes()` describes."""
    resources = [node["Resources"] for node in described if node["Alive"]]
    return [Node(float(has.get("CPU", 0.0)), float(has.get("GPU", 0.0))) for has in resources]


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster. Raises `SpecError`."""
    match = _ADDRESS.fullmatch(address)
    if not match or int(match["port"] or 1) not in range(1, 2**16):
        raise SpecError(f"{address!r} is no address of a Ray cluster", hint="--address auto, or HOST:PORT")


def nodes_at(address: str) -> list[Node]:
    """The nodes of the cluster at an address. Raises `LoadError` if there is none, or it does not answer.

    Asked by a process of its own: Ray tries for many minutes to reach what is no cluster, and cannot be stopped.
    """
    match = _ADDRESS.fullmatch(address)
    if match and match["host"]:
        try:
            socket.create_connection((match["host"].strip("[]"), int(match["port"])), _REACH_S).close()
        except OSError as error:
            raise LoadError(f"no Ray cluster at {address!r}: {error.strerror or error}", hint=_HINT) from error
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", _ASK, address], capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"no Ray cluster at {address!r}: no answer in {_ANSWER_S:.0f} s", hint=_HINT) from error
    if asked.returncode:
        said = asked.stderr.strip().splitlines() or ["it ended without a word"]
        raise LoadError(f"no Ray cluster at {address!r}: {said[-1]}", hint=_HINT)
    try:
        return nodes_alive(json_of(asked.stdout.strip().splitlines()[-1]))
    except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise LoadError(f"the Ray cluster at {address!r} does not say what it has: {error}", hint=_HINT) from error


def check_room(nodes: Iterable[Node], *, threads: int, gpus: float) -> None:
    """Refuse a cell that no node has room for, however long it waits. Raises `SpecError`."""
    found = list(nodes) or [Node(0)]
    if any(threads <= node.cpus and gpus <= node.gpus for node in found):
        return
    cpus, most = max(node.cpus for node in found), max(node.gpus for node in found)
    if threads > cpus:
        raise SpecError(
            f"--threads {threads} is more than any node of the Ray cluster has: {cpus:g} CPUs",
            hint=f"use --threads {int(cpus)} or less" if cpus >= 1 else "add a node with CPUs",
        )
    if not most:
        raise SpecError(
            f"a cell asks for {gpus:g} GPUs, and no node of the Ray cluster has one",
            hint="leave --gpus out and use --device cpu, or add a node with a GPU",
        )
    if gpus > most:
        raise SpecError(
            f"--gpus {gpus:g} is more than any node of the Ray cluster has: {most:g}",
            hint=f"use --gpus {most:g} or less",
        )
    raise SpecError(
        f"no node of the Ray cluster has {threads} CPUs and {gpus:g} GPUs at once", hint="ask for less of one of them"
    )
