"""Text files that others wrote: bounded, strict, and every refusal in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afftool.received import DEEPEST, Malformed, json_of, read_bytes, read_text, toml_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": NaN}', "holds NaN, which is no number (a)"),
        ("[-Infinity]", "holds -Infinity, which is no number ([0])"),
        ("[1e999]", "holds 1e999, which is beyond every number there is ([0])"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "holds the key 'c' twice in one object (b: c)"),
        ("1e999", "holds 1e999, which is beyond every number there is"),
        ('{"a": [0, NaN], "b": 1' + "9" * 5000 + "}", "holds NaN, which is no number"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "is nested too deep"),
        ("[" * 100_000, "is nested too deep"),
        ("9" * 5000, "holds a number with too many digits"),
        ('{"a": ', "ends in the middle (line 1: Expecting value)"),
        ("<html></html>", "is not JSON (line 1: Expecting value)"),
        ("", "ends in the middle (line 1: Expecting value)"),
    ],
)
def test_json_that_lies_or_explodes_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        json_of(text)
    assert str(caught.value) == words


def test_json_within_bounds_is_what_it_says() -> None:
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert json_of('{"a": [1, 2.5, null, true, "x"]}') == {"a": [1, 2.5, None, True, "x"]}
    assert json_of(deep)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 100_000, "is nested too deep"),
        ("a = " + "[" * 150 + "]" * 150, "is nested too deep"),
        ("a = " + "9" * 5000, "holds a number with too many digits"),
        ("a." * 80_000 + "a = 1", "is nested too deep: a key of more than 100 parts"),
        ("[" + ".".join(["'a b'", '"c.d"', "e-f"] * 40) + "]", "is nested too deep: a key of more than 100 parts"),
        ("#" * (2**20 + 1), "has more than 1,048,576 characters"),
        ("a = 0x" + "f" * 20, "holds a whole number of more than 64 bits"),
        ("a = 1\na = 2", "is not TOML: Cannot overwrite a value (at end of document)"),
    ],
)
def test_toml_that_explodes_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        toml_of(text)
    assert str(caught.value) == words


def test_only_a_plain_file_within_its_bound_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "windows").write_bytes(b"\xef\xbb\xbfa\r\nb")
    (tmp_path / "link").symlink_to("windows")
    for name, words in {"pipe": "is a pipe, not a file", ".": "is a folder, not a file"}.items():
        with pytest.raises(Malformed, match=words):
            read_bytes(tmp_path / name)
    with pytest.raises(Malformed, match=r"is larger than 1 MiB"):
        read_bytes(tmp_path / "large", at_most=2**20)
    with pytest.raises(Malformed, match=r"is not UTF-8 text \(byte 3\)"):
        read_text(tmp_path / "latin")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")
    assert read_text(tmp_path / "link") == "a\nb"
