"""The reader of CIFAR's pickles against made-up ones: it gives what pickle would give, or a sentence; nothing runs."""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

import numpy as np
from fuzzing import AT_LENGTH, fuzz
from hypothesis import strategies as st

from afftool.data import safe_pickle
from afftool.errors import LoadError

_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20)
_ARRAYS = st.integers(1, 5).map(lambda n: np.arange(3 * n, dtype=np.uint8).reshape(n, 3))
_CONTENT = st.dictionaries(
    st.text(max_size=10), _SCALARS | _ARRAYS | st.lists(_SCALARS | st.lists(_SCALARS, max_size=3), max_size=20)
)

_ARGUMENTS = st.sampled_from(
    [
        *(b"", b"\0", b"\1", b"\xff" * 4, b"\xff" * 8, b"\0\0\0\x80\0\0\0\0"),
        *(b"1\n", b"9" * 30 + b"\n", b"'x'\n", b"x\n", b"\2u1"),
        *(b"numpy\ndtype\n", b"numpy.core.multiarray\n_reconstruct\n", b"os\nsystem\n", b"_codecs\nencode\n"),
    ]
)
_INSTRUCTIONS = st.tuples(
    st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]), _ARGUMENTS
).map(b"".join)
_PROGRAMS = st.lists(_INSTRUCTIONS, max_size=40).map(lambda parts: b"\x80\x02}" + b"".join(parts) + b".")


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8
    return value is None or type(value) in (bool, int, float, str)


def _gives_plain_values_or_a_sentence(raw: bytes) -> None:
    refused: LoadError | None = None
    content: Any = {}
    try:
        content = safe_pickle.load(raw, "some file")
    except LoadError as error:
        refused = error
    assert refused is None or ("some file" in refused.message and refused.hint)
    assert type(content) is dict
    assert _plain(content)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


@AT_LENGTH
def test_what_cifar_may_hold_is_read_as_pickle_reads_it(examples: int) -> None:
    def check(made: tuple[dict[str, Any], int]) -> None:
        content, protocol = made
        read = safe_pickle.load(pickle.dumps(content, protocol=protocol), "some file")
        assert list(read) == list(content)
        assert all(_same(content[key], read[key]) for key in content)

    fuzz(examples, st.tuples(_CONTENT, st.integers(2, 4)), check)


@AT_LENGTH
def test_any_bytes_give_plain_values_or_a_sentence(examples: int) -> None:
    fuzz(examples, st.binary(max_size=200), _gives_plain_values_or_a_sentence)


@AT_LENGTH
def test_any_instructions_in_any_order_give_plain_values_or_a_sentence(examples: int) -> None:
    fuzz(examples, _PROGRAMS, _gives_plain_values_or_a_sentence)


@AT_LENGTH
def test_a_sound_pickle_with_a_few_bytes_changed_gives_plain_values_or_a_sentence(examples: int) -> None:
    sound = pickle.dumps(
        {"data": np.zeros((4, 8), np.uint8), "labels": [1, 2, 3, 4], "filenames": ["a", "b", "c", "d"]}, protocol=2
    )

    def check(changes: dict[int, int]) -> None:
        raw = bytearray(sound)
        for at, value in changes.items():
            raw[at] = value
        _gives_plain_values_or_a_sentence(bytes(raw))

    fuzz(examples, st.dictionaries(st.integers(0, len(sound) - 1), st.integers(0, 255), max_size=4), check)
