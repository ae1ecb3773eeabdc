"""From cases to records: `bench(cases, Options(...))` measures and yields a record each, as soon as it is known.

`run` is the generator; `options` says how to measure, `rows` holds what is worked on (groups of cases, a row a case and
backend), `entry` gets one row ready to be timed, `child` does so in a process of its own, `session` stores and shows
what comes.
"""

from afftool.bench.options import Options
from afftool.bench.run import bench

__all__ = ["Options", "bench"]
