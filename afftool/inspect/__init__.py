"""A fusion looked at as a reviewer would, ours or the user's own.

`review` runs every check of `checks.CHECKS` on a `Subject`. A check is a function `check(subject) -> list[Finding]`; it
sees the module as a black box called `module(x, y)` and only adds detail where it knows what is inside.
"""
