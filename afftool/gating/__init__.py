"""The CI gate around `afftool.gate`, in the order a check goes through it.

`metrics` names what can be judged, `rules` what a change may cost, `config` reads both from the user's TOML;
`worktree` brings a git ref beside the working tree; `side` runs one of the two in a process of its own, whose inner
half is `worker` (the only file of these that imports torch); `contest` times two sides against each other;
`baseline` is the file a reading is kept in; `explain` puts a verdict into words; `say` holds the table, Markdown,
JUnit, JSON and annotations.
"""
