"""A profile to look into: capture a trace, read it, and lay two beside each other.

Reading order: `run` is the way from a case to its files. `capture` writes the trace (the only part that needs torch),
`trace` reads it back and finds who called whom, `operators` and `timeline` make the tables of it. `summary` holds them
all as one value; `report` words it, `diff` lays two side by side. `plugin` is the one file that touches
torch-tb-profiler, to read with it and to show its pages in TensorBoard.
"""
