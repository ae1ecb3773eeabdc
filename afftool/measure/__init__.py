"""Functions that read numbers off a case, a room for each kind of number: `cost`, `time`, `memory`, `energy`.

`ceilings` is what this machine can reach at best; `running` is what the rooms share: what goes on around a module that
runs.
"""
