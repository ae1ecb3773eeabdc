"""The JSON document: the study as it was planned, and all that is known of it, exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from afftool.record import SCHEMA, Environment
from afftool.study.results import Results
from afftool.study.significance import Comparison, Summary


def study_document(
    results: Results, environment: Environment, summaries: Mapping[str, Summary], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """What `--json` prints: comparisons and cells with every field they have."""
    return {
        "schema": SCHEMA,
        "environment": environment.to_dict(),
        "study": results.plan.to_dict(),
        "variants": {
            name: {"mean": s.mean, "low": s.low, "high": s.high, "seeds": {str(k): v for k, v in s.values.items()}}
            for name, s in summaries.items()
        },
        "comparisons": [dataclasses.asdict(c) for c in comparisons],
        "cells": [
            {"variant": name, "seed": seed, **cell.to_dict()} for (name, seed), cell in sorted(results.cells.items())
        ],
    }
