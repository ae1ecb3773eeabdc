"""The CI gate: a reference and a candidate, with rules, give verdicts.

`reading` names what can be judged and holds what one side says of it, `rules` what a change may cost, `config` reads
cases and rules from the user's TOML; `judge` gives the verdicts and is pure, `explain` puts them into words.
`worktree` brings a git ref beside the working tree; `side` runs one of the two in a process of its own, whose inner
half is `worker`, with `exact` and `stopwatch` (the only three files of these that load torch); `times` has two sides
timed against each other; `reference` is the file a reading is kept in. `check` goes through all of it, `noise` through
the code against itself. `say` words a judgement for people, `ci` for programs, and `listeners` take it there.
"""
