"""A profile to look into: capture a trace, read it, and lay two beside each other.

Reading order: `capture` writes the trace (the only part that needs torch), `trace` reads it back, `tree` finds who
called whom, `summary` holds every table of the report and `report` words them. `plugin` is the one file that touches
torch-tb-profiler, `board` the one that starts TensorBoard.
"""
