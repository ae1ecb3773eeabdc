"""Secrets in what is kept and said: a command line, an exception's message. What looks like one becomes `***`.

Known are a user and password in an address, a value of six characters or more that is called a token, password, secret
or key of an interface, what an `Authorization` holds, and the tokens of Hugging Face, GitHub, GitLab, AWS, Google,
OpenAI and Slack by their shape, JSON web tokens too. A secret that looks like any other word cannot be told and stays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from afftool.visible import LONGEST, cut, line

HIDDEN = "***"

_STRONG = r"password|passwd|passphrase|secret|(?:api|access|secret|private|auth)[_-]?key(?:[_-]id)?"
"""Names that are of nothing else, in a sentence too; a token may be a parser's or a network's."""
_NAMES = rf"(?:[a-z0-9]+[_-])*(?:{_STRONG}|token|credentials?)"
_VALUE = r"(?!\*\*\*)(?:(?!:\w+=)[^\s&;,\"'()\[\]{}]){6,}"
"""Up to what ends it in an address, in JSON, in a sentence, or before the next of `key=value:key=value`."""
_OPTION = re.compile(rf"--?{_NAMES}", re.IGNORECASE)
_PATTERNS = (
    (r"(?<=://)()[^\s/?#@'\"]{1,500}+(?=@)", re.NOFLAG),
    (rf"(?<![a-z0-9_-])([_-]*+{_NAMES}(?:\s?=\s?[\"']?|[\"']\s?[=:]\s?[\"']?)){_VALUE}", re.IGNORECASE),
    (rf"(?<![a-z0-9_-])([_-]*+(?:[a-z0-9]+[_-])*(?:{_STRONG})\s?:\s?){_VALUE}", re.IGNORECASE),
    (rf"([?&](?:[a-z0-9]+-)*(?:sig|signature|key)=){_VALUE}", re.IGNORECASE),
    (rf"(\bauthorization[\"']?+\s?+[:=]\s?+[\"']?+(?:bearer|basic|token)?+\s?+){_VALUE}", re.IGNORECASE),
    (r"(\bBearer\s+)(?=[A-Za-z_.~+/=-]*\d)[\w.~+/=-]{12,}", re.NOFLAG),
    (
        r"()\b(?:hf_[A-Za-z0-9]{16,}|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
        r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{30,}|sk-(?:proj-|svcacct-|ant-\w+-)?[A-Za-z0-9_]{20,}"
        r"|xox[a-z]-[\w-]{10,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)",
        re.NOFLAG,
    ),
)
"""What comes before a secret and stays, and the secret."""
_SECRETS = tuple(re.compile(pattern, flags) for pattern, flags in _PATTERNS)


def masked(text: str) -> str:
    """The text without what looks like a secret."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<1>{HIDDEN}", text)
    return text


def told(text: str) -> str:
    """The text so, cut where it is too long to be told; of a huge one only what could be told is looked at."""
    return cut(masked(cut(text, 2 * LONGEST)))


def command_line(words: Sequence[str]) -> str:
    """A command as a shell would take it, as `visible` shows it and without what looks like a secret.

    A secret may be a word of its own, after an option that is called so.
    """
    kept = [
        HIDDEN if _OPTION.fullmatch(before) and not word.startswith("-") else masked(word)
        for before, word in zip(("", *words), words, strict=False)
    ]
    return line(shlex.join(kept))
