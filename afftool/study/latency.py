"""Latencies that were benched of a study's networks, so that a report can set them beside the scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afftool import catalog
from afftool.record import Environment, Record
from afftool.spec import FusionSpec, HostSpec


@dataclass(frozen=True)
class Benched:
    """A median latency and how it was taken."""

    latency_ms: float
    how: str


def benched(
    variants: Mapping[str, tuple[str, str]], records: Sequence[tuple[Environment, Record]]
) -> dict[str, Benched]:
    """The latest latency of each variant (name -> fusion, host), all taken alike: one machine, backend, batch and size.

    Of several such ways the one that covers most variants is taken, the latest of equals; hosts that differ in nothing
    but their number of classes count as the same.
    """
    wanted = {(FusionSpec.parse(fusion).text, _network(host)): name for name, (fusion, host) in variants.items()}
    ways: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for environment, record in records:
        if record.status != "ok" or record.latency_ms is None or record.mode != "infer":
            continue
        name = wanted.get((record.fusion, _network(record.host)))
        if name is None:
            continue
        how = (
            f"{record.backend} on {environment.gpu or environment.cpu}, batch {record.batch}, "
            f"{record.height}x{record.width}, {record.dtype}, {record.memory_format}"
        )
        ways[environment.fingerprint, how][name] = record.latency_ms
    if not ways:
        return {}
    (_, how), found = max(reversed(ways.items()), key=lambda item: len(item[1]))
    return {name: Benched(latency, how) for name, latency in found.items()}


def _network(host: str) -> str:
    """The host's text without what does not change its time to speak of: the number of classes."""
    try:
        spec = HostSpec.parse(host)
    except Exception:  # a host of the user's own that is no longer there
        return host
    if spec.target is None and spec.name not in catalog.HOSTS:
        return host
    return ":".join(part for part in spec.text.split(":") if not part.startswith("classes="))
