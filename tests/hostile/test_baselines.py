"""A baseline, and what an older commit's worker answers, as a stranger may write them: refused, and never `fine`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import AT_LENGTH, fuzz
from hypothesis import strategies as st

from afftool.errors import BaselineError, UserError
from afftool.gate import reference
from afftool.gate.config import GateCase
from afftool.gate.reference import Reference
from afftool.gate.side import CaseError, Side, read_environment, read_exact
from afftool.gate.worktree import ImportPlan
from afftool.spec import CaseSpec, FusionSpec

NAME = "add channels=4 size=2x2 batch=2"


def text_of() -> str:
    """A baseline of one case, as the gate writes it."""
    document = {
        "schema": 1,
        "afftool": "1",
        "environment": {"afftool": "1", "python": "3.11.7", "torch": "2.13.0", "cpu": "one", "cores": 2},
        "cases": {NAME: {"params": 100, "details": {"params": {"a": 100}}, "times_ms": [1.5, 2.0], "batch": 2}},
    }
    return json.dumps(document)


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(BaselineError) as caught:
        reference.read(path)
    assert caught.value.exit_code == 5
    assert caught.value.hint
    assert path.read_text() == text
    return caught.value.message


@pytest.mark.long
@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_the_gate_refuses_a_number_that_is_none_and_passes_nothing(
    place: Any, refuses: Callable[..., str], number: str
) -> None:
    (place.folder / "b.json").write_text(text_of().replace('"params": 100', f'"params": {number}', 1))
    said = refuses(5, "check", "b.json", "--fusion", "add", "-c", "4", "-s", "2", "-b", "2", "-m", "params")
    assert f"holds {number}, which is" in said
    assert f"(cases: {NAME}: params)" in said


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('"params": 100, "params": 1', f"holds the key 'params' twice in one object (cases: {NAME}: params)"),
        ('"params": -Infinity', f"holds -Infinity, which is no number (cases: {NAME}: params)"),
        ('"params": 1e999', "holds 1e999, which is beyond every number"),
        ('"params": -1', f"case {NAME!r}: params is -1, no whole number from 0 on"),
        ('"params": 1.5', "params is 1.5, no whole number from 0 on"),
        ('"params": 100.0', "params is 100.0, no whole number from 0 on"),
        ('"params": true', "params is True, no whole number from 0 on"),
        ('"params": "100"', "params is '100', no whole number from 0 on"),
        ('"params": null', "params is None, no whole number from 0 on"),
        ('"params": [100]', "params is [100], no whole number from 0 on"),
        ('"params": ' + "9" * 400, "no whole number from 0 on"),
        ('"params": ' + "9" * 5000, "holds a number with too many digits"),
        ('"params": ' + "[" * 200 + "]" * 200, "is nested too deep"),
        ('"instructions": -5', "instructions is -5, no whole number"),
        ('"details": {"params": {"a": NaN}}', "holds NaN, which is no number"),
        ('"details": {"params": {"a": -3}}', "params of a is -3, no whole number"),
        ('"details": {"params": 3}', "params is 3, no object"),
        ('"details": [3]', "details is [3], no object"),
        ('"times_ms": [0]', "times_ms holds 0, which is no time"),
        ('"times_ms": [1e-300]', "times_ms holds 1e-300, which is no time"),
        ('"times_ms": [1e300]', "times_ms holds 1e+300, which is no time"),
        ('"times_ms": [true]', "times_ms holds True, which is no time"),
        ('"times_ms": 3', "times_ms is 3, no list"),
        ('"times_ms": "12"', "times_ms is '12', no list"),
        ('"jobs_ms": {"a": 1}', "jobs_ms is {'a': 1}, no list"),
        ('"batch": 0', "batch is 0, no whole number from 1 on"),
        ('"batch": 2.5', "batch is 2.5, no whole number from 1 on"),
        ('"batch": null', "batch is None, no whole number from 1 on"),
        ('"nonfinite_share": 1.5', "nonfinite_share is 1.5, no share from 0 to 1"),
        ('"nonfinite_share": -1e-9', "nonfinite_share is -1e-09, no share"),
        ('"nonfinite_share": "half"', "nonfinite_share is 'half', no share"),
    ],
)
def test_a_case_that_cannot_be_is_refused_by_its_name_and_its_number(tmp_path: Path, written: str, words: str) -> None:
    text = json.dumps({"schema": 1, "environment": {"afftool": "1", "python": "3"}, "cases": {NAME: {"x": 0}}})
    assert words in refused(tmp_path / "b.json", text.replace('"x": 0', written))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": true}', "no schema number"),
        ('{"schema": 1.0}', "no schema number"),
        ('{"schema": ' + "9" * 4000 + "}", "has schema 9999"),
        ('{"schema": 2, "afftool": "\\u001b[2J rm -rf"}', "has schema 2"),
        ('{"schema": 1, "cases": []}', "lacks what it should hold: its cases"),
        ('{"schema": 1, "cases": {}, "environment": 3}', "lacks what it should hold: its environment"),
        ('{"schema": 1, "cases": {}, "environment": {}}', "holds what cannot be: an Environment"),
        ('{"schema": 1, "cases": {"a": 3}, "environment": {"afftool": "1", "python": "3"}}', "it is no object"),
        ('{"schema": 1, "cases": {}, "environment": {"afftool": "1", "python": "3", "torch": 3}}', "torch is text"),
        (
            '{"schema": 1, "cases": {}, "environment": {"afftool": "1", "python": "3", "cores": "2"}}',
            "cores is a",
        ),
        ("[" * 100_000, "is nested too deep"),
        ('{"a":' * 100_000, "is nested too deep"),
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> b\n", "unresolved merge conflict at line 1"),
    ],
)
def test_a_document_that_is_no_baseline_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    message = refused(tmp_path / "b.json", text)
    assert words in message
    assert len(message) < 400


def test_a_newer_file_s_word_for_its_version_is_told_only_where_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"schema": 2, "afftool": "\\u001b[2J"}')
    with pytest.raises(BaselineError) as caught:
        reference.read(tmp_path / "b.json")
    assert caught.value.hint == "upgrade afftool to a newer version or later"


def test_a_pipe_a_folder_and_a_huge_file_are_refused_at_once_and_a_link_to_a_baseline_is_one(
    place: Any,
) -> None:
    os.mkfifo(place.folder / "pipe")
    for path, kind in ((place.folder / "pipe", "pipe"), (place.folder, "folder")):
        with pytest.raises(BaselineError, match=f"cannot be read: it is a {kind}, not a file"):
            reference.read(path)
    with open(place.folder / "huge", "wb") as sparse:
        sparse.truncate(100 * 2**20)
    with pytest.raises(BaselineError, match="is larger than 64 MiB"):
        reference.read(place.folder / "huge")
    (place.folder / "b.json").write_text(text_of())
    (place.folder / "link").symlink_to("b.json")
    assert reference.read(place.folder / "link").readings[NAME].values == {"params": 100}
    (place.folder / "round").symlink_to("round")
    with pytest.raises(BaselineError, match="Too many levels of symbolic links"):
        reference.read(place.folder / "round")


def test_a_baseline_is_not_written_over_a_file_that_is_none_whoever_named_it(
    place: Any, refuses: Callable[..., str]
) -> None:
    (place.folder / "project").mkdir()
    (place.folder / "keys").write_text("ssh-ed25519 AAAA\n")
    (place.folder / "own.toml").write_text('baseline = "keys"\n[[case]]\nfusion = "add"\nchannels = 4\nsize = 2\n')
    said = refuses(2, "check", "--config", "own.toml", "--write-baseline")
    assert "keys is there already, and is no baseline of afftool" in said
    (place.folder / "binary").write_bytes(b"\xff")
    for name, words in (("project", "it is a folder"), ("binary", "is there already")):
        with pytest.raises(UserError, match=words):
            reference.refuse_unwritable(place.folder / name)
    for text in ("", "\n", text_of()[:60], f"<<<<<<< HEAD\n{text_of()}"):
        (place.folder / "b.json").write_text(text)
        reference.refuse_unwritable(place.folder / "b.json")
    reference.refuse_unwritable(place.folder / "none.json")


def test_what_a_newer_baseline_has_besides_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text_of().replace('"params": 100', '"parms": 7, "params": 100', 1))
    assert reference.read(tmp_path / "b.json").readings[NAME].values == {"params": 100}


@pytest.mark.parametrize(
    "answer",
    [
        '{"reading": {"values": {"params": NaN}}}',
        '{"reading": {"values": {"params": -1}}}',
        '{"reading": {"values": {"params": true}}}',
        '{"reading": {"values": {"params": 1}, "nonfinite_share": Infinity}}',
        '{"reading": {"times_ms": [-1]}}',
        '{"reading": {"batch": 0}}',
        '{"reading": 3}',
        '{"readings": {}}',
        "[1, 2]",
        "3",
        "not JSON",
        "[" * 100_000,
        '{"error": {"nonsense": 1}}',
        '{"error": 3}',
    ],
)
def test_an_older_commit_s_reading_that_cannot_be_fails_its_case(made_up: Callable[..., Side], answer: str) -> None:
    with made_up(exact=answer) as older:
        [found] = read_exact([older], [CASE], ["params"], lambda *_: None)
    assert found[CASE.name].status == "failed"
    assert found[CASE.name].reason
    assert found[CASE.name].values == {}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "0", "-1", "true", "null", '"1"', "1e-300"])
def test_a_worker_s_time_and_count_that_cannot_be_are_an_error_of_the_case(
    made_up: Callable[..., Side], number: str
) -> None:
    with made_up(time=f'{{"step_ms": {number}}}', instructions='{"instructions": NaN}') as side:
        with pytest.raises(CaseError, match="step_ms is"):
            side.ask("time")
        with pytest.raises(CaseError, match="instructions is nan"):
            side.ask("instructions")
        with pytest.raises(CaseError, match="without reading"):
            side.ask("hello")["reading"]


def test_a_worker_that_does_not_say_where_it_runs_is_refused(made_up: Callable[..., Side]) -> None:
    with (
        made_up(environment='{"environment": {"afftool": 3}}') as side,
        pytest.raises(UserError, match="does not say where it runs"),
    ):
        read_environment(side, [CASE])


@AT_LENGTH
def test_any_bytes_in_place_of_a_baseline_are_a_baseline_or_one_refusal(tmp_path: Path, examples: int) -> None:
    path, whole = tmp_path / "b.json", text_of()
    refusals: list[BaselineError] = []

    def check(spoiled: str) -> None:
        path.write_text(spoiled, errors="surrogatepass")
        try:
            found = reference.read(path)
        except BaselineError as error:
            refusals.append(error)
            return
        assert isinstance(found, Reference)
        for reading in found.readings.values():
            assert all(isinstance(value, int) and value >= 0 for value in reading.values.values())

    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
    parts = st.sampled_from(['"schema": 1', '"params": 100', '{"a": 100}', "[1.5, 2.0]", '"cores": 2', '"batch": 2'])
    swapped = st.tuples(parts, values).map(lambda t: whole.replace(t[0], f"{t[0].split(':')[0]}: {json.dumps(t[1])}"))
    replaced = st.tuples(parts, values).map(lambda t: whole.replace(t[0], json.dumps(t[1])))
    cut = st.integers(0, len(whole)).map(lambda n: whole[:n])
    fuzz(examples, swapped | replaced | cut | values.map(json.dumps) | st.text(max_size=40), check)
    assert refusals
    assert all(error.hint for error in refusals)


CASE = GateCase(name=NAME, spec=CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(2, 2), batch=2))

WORKER = """
import json, sys
ANSWERS = {answers!r}
ANSWERS.setdefault("hello", '{{"protocol": 2}}')
for line in sys.stdin:
    print(ANSWERS[json.loads(line)["do"]], flush=True)
"""


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., Side]:
    """A side whose worker is of another afftool, and answers what it is told to."""

    def make(**answers: str) -> Side:
        package = tmp_path / "afftool" / "gate"
        package.mkdir(parents=True, exist_ok=True)
        (tmp_path / "afftool" / "__init__.py").touch()
        (package / "__init__.py").touch()
        (package / "worker.py").write_text(WORKER.format(answers=answers))
        return Side(tmp_path, ImportPlan(paths=(tmp_path,), packages=("afftool",), tree=tmp_path))

    return make
