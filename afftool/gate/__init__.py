"""The CI gate: a reference and a candidate, with rules, give verdicts.

`reading` names what can be judged and holds what one side says of it, `rules` what a change may cost, `config` reads
cases and rules from the user's TOML; `judge` gives the verdicts and is pure, `explain` puts them into words.
`worktree` brings a git ref beside the working tree; `side` runs one of the two in a process of its own, whose inner
half is `worker`, with `exact` and `stopwatch` (the only three files of these that load torch); `contest` has two sides
timed against each other in turns, `times` one by itself; `reference` is the file a reading is kept in. `check`
measures, `against_ref` and `against_reference` go through all of it, `noise` through the code against itself; `jobs`
adds a job's times to the file. `say` words a judgement for people, `ci` for programs, `listeners` take it there.
"""
