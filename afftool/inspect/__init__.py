"""A fusion looked at as a reviewer would, ours or the user's own.

`review` runs every check of `checks.CHECKS` on a `Subject`. A check is a function `check(subject) -> list[Finding]`; it
sees the module as a black box called `module(x, y)` and only adds detail where it knows what is inside. The subject
builds the module afresh (`subject.module()`) and its inputs (`subject.maps()`), and `subject.call` runs one on the
other. What was looked at and is fine is a finding too, of severity "ok".

One more check is one file and one line in CHECKS; those here stand together by what they are about.
"""
