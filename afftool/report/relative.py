"""Which rows are compared with which, which value is best, and what multiple of the baseline's a value is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from afftool.errors import AfftoolError
from afftool.record import Record
from afftool.report.columns import ALLOCATOR, BACKEND, FUSION, QUANTITIES, SETTING
from afftool.report.exact import FIELDS, frame, objects
from afftool.report.usable import TIMES, as_told, unusable
from afftool.spec import FusionSpec
from afftool.spec.sweep import baseline_of

if TYPE_CHECKING:
    import pandas

ALIKE = [column.name for column in (*SETTING, BACKEND, ALLOCATOR)]
"""What two rows must have alike to be compared."""
RELATIVE = [quantity.name for quantity in QUANTITIES if quantity.relative]


class Baseline:
    """The baseline's rows, found by everything but the fusion: same setting, backend and allocator, as many inputs."""

    def __init__(self, records: Sequence[Record], text: str | None) -> None:
        self.text = text
        self._names = {fusion: _serving(fusion, text) for fusion in {r.fusion for r in records}}
        measured = [as_told(r) for r in records if r.status == "ok"]
        self._rows = _comparable(measured).drop_duplicates([FUSION.name, *ALIKE], keep="last")

    def is_baseline(self, record: Record) -> bool:
        """Whether this row is one that others are compared with."""
        return self.text is not None and self._names.get(record.fusion) == record.fusion

    def ratios(self, records: Sequence[Record]) -> pandas.DataFrame:
        """The rows' costs as multiples of the baseline's, a row a record and a column a cost, in this order.

        NA where either is missing or the baseline's is 0. A time's ratio is the one measured round by round, if it was.
        """
        records = [as_told(record) for record in records]
        own = _comparable(records)  # each row under the name of the baseline that serves it
        own[FUSION.name] = objects([self._names.get(record.fusion) for record in records])
        # A merge takes missing keys as equal: rows that both have no backend or no height are compared.
        found = own[[FUSION.name, *ALIKE]].merge(self._rows, how="left", on=[FUSION.name, *ALIKE])[RELATIVE]
        ratios = own[RELATIVE] / found.where(found != 0)
        uncounted = objects([bool(record.uncounted_ops) for record in records]).astype(bool)
        for cost in ("macs", "flops", "backward_macs", "backward_flops"):  # of which nothing may have been counted
            ratios[cost] = ratios[cost].mask(uncounted & (own[cost] == 0))
        paired = objects([self._paired(record) for record in records]).astype(bool)
        ratios["latency_ms"] = own["latency_ratio"].where(paired, ratios["latency_ms"])
        return ratios

    def ratio_interval(self, record: Record) -> tuple[float, float] | None:
        """The 95% interval of the latency's ratio, where the two were timed in the same rounds."""
        record = as_told(record)
        low, high = record.latency_ratio_low, record.latency_ratio_high
        return (low, high) if self._paired(record) and low is not None and high is not None else None

    def _paired(self, record: Record) -> bool:
        return record.latency_ratio is not None and record.baseline == self._names.get(record.fusion)


def best_of_group(records: Sequence[Record]) -> pandas.DataFrame:
    """Which values are the best of the rows measured alike: a row a record, a column a quantity that has a better.

    None is where a group's values are all alike; ties share the mark. Where nobody can use the time of one of a group,
    none of its times is the best: it may have been that one. A row whose values are not finite is none.
    """
    rows = _comparable([as_told(record) for record in records])
    finite = objects([not record.nonfinite_share for record in records]).astype(bool)
    usable = objects([unusable(record) is None for record in records]).astype(bool)
    less = [quantity.name for quantity in QUANTITIES if quantity.better == "less"]
    judged = [quantity.name for quantity in QUANTITIES if quantity.better]
    rows["maps"] = objects([_maps(record.fusion) for record in records])
    alike = [*ALIKE, "maps"]
    groups = rows.groupby(alike, dropna=False, sort=False)[judged]
    differ = groups.transform("min") < groups.transform("max")
    rows[judged] = rows[judged].where(finite)
    ranked = rows.groupby(alike, dropna=False, sort=False)[judged]
    low, high = ranked.transform("min"), ranked.transform("max")
    winner = high.assign(**{name: low[name] for name in less})
    best = (differ & (rows[judged] == winner)).fillna(False).astype(bool)
    sure = rows.assign(usable=usable).groupby(alike, dropna=False, sort=False)["usable"].transform("all")
    best.loc[~sure.astype(bool), [name for name in judged if name in TIMES]] = False
    return best


def exact_rows(records: Sequence[Record], baseline: Baseline) -> pandas.DataFrame:
    """One row a record with every stored field, then the multiples of the baseline, then what it is best at."""
    rows = frame(records)
    for name in FIELDS:
        if rows[name].dtype == object:  # those that hold text, or a mapping
            rows[name] = objects([_flat(value) for value in rows[name]])
    best = best_of_group(records)
    named = objects([" ".join(best.columns[marks]) or None for marks in best.to_numpy()])
    return rows.join(baseline.ratios(records).add_suffix("_vs_baseline")).assign(best=named)


def _comparable(records: Sequence[Record]) -> pandas.DataFrame:
    """The records with everything in columns that they must have alike."""
    made = {column.name: [column.value(r) for r in records] for column in SETTING if column.name not in FIELDS}
    return frame(records).assign(**{name: objects(values) for name, values in made.items()})


def _flat(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list, tuple)) else value


def _maps(fusion: str) -> str:
    """What a fusion fuses, as far as rows that fuse other maps are not to be compared; two maps where nobody knows."""
    try:
        spec = FusionSpec.parse(fusion)
    except AfftoolError:
        return "2"
    return str(spec.maps) if spec.uneven else str(spec.inputs)


def _serving(fusion: str, baseline: str | None) -> str | None:
    """The text of the baseline that fuses the same maps; names that are not known here are taken as they are."""
    if baseline is None:
        return None
    try:
        serving = baseline_of(FusionSpec.parse(fusion), FusionSpec.parse(baseline))
        return serving.text if serving else None
    except AfftoolError:
        return baseline
