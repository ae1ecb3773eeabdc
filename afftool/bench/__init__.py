"""From cases to records: `bench(cases, Options(...))` measures and yields a record each, as soon as it is known.

`run` is the generator; `rows` holds what it works on (groups of cases, a row a case and backend), `place` says where
each is made ready; `entry` does that in this process, `child` has it done in a process of its own, whose inner half is
`worker`; `elsewhere` looks at what is the user's own before, where that may not run here; `session` stores and shows
what comes. Importing any of it loads torch; the options do not (`afftool.spec.options`).
"""

from afftool.bench.run import bench
from afftool.spec.options import Options

__all__ = ["Options", "bench"]
