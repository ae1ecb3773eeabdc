"""The baseline file: small, sorted, and refused with a clear answer where it cannot be used."""

import json
from dataclasses import replace

import pytest

from afftool.errors import BaselineError
from afftool.gate import reference
from afftool.gate.reading import Reading
from afftool.gate.reference import Reference
from afftool.record import Environment

HERE = Environment(afftool="1", python="3.11.7", torch="2.13.0+cpu", platform="Linux x86_64", cpu="one", cores=2)
READING = Reading(
    values={"params": 100, "macs": 5, "uncounted_ops": 0},
    details={"params": {"b": 60, "a": 40}, "dead_params": {}},
    times_ms=(1.23456789, 2.0),
    batch=8,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "folder" / "afftool-baseline.json"
    reference.write(path, Reference(readings={"z": READING, "a": READING}, environment=HERE))
    return path


def test_a_baseline_comes_back_as_it_was_written(file):
    found = reference.read(file)
    assert found.readings["a"] == replace(READING, details={"params": {"a": 40, "b": 60}}, times_ms=(1.2346, 2.0))
    assert found.environment.fingerprint == HERE.fingerprint
    assert found.has_times


def test_the_file_is_sorted_numbered_one_value_a_line_and_the_same_every_time(file):
    text = file.read_text()
    reference.write(file, reference.read(file))
    assert file.read_text() == text
    document = json.loads(text)
    assert document["schema"] == 1
    assert text.index('"a": {') < text.index('"z": {')
    assert '   "macs": 5,\n' in text
    assert text.endswith("}\n")
    assert "memory" not in text
    assert len(list(file.parent.iterdir())) == 1


def test_a_baseline_keeps_the_medians_of_further_jobs_and_a_file_without_them_reads_as_one_job(tmp_path):
    path = tmp_path / "baseline.json"
    reading = replace(READING, jobs_ms=(1.5, 1.7))
    reference.write(path, Reference(readings={"a": reading, "b": READING}, environment=HERE))
    found = reference.read(path).readings
    assert found["a"].jobs == pytest.approx((1.6173, 1.5, 1.7))
    assert found["b"].jobs == pytest.approx((1.6173,))
    assert "jobs_ms" not in json.loads(path.read_text())["cases"]["b"]
    assert Reading().jobs == ()


@pytest.mark.parametrize("times", [{"times_ms": [0]}, {"jobs_ms": [1.0, -1.0]}, {"jobs_ms": ["1"]}])
def test_a_time_that_cannot_be_one_is_refused(file, times):
    document = json.loads(file.read_text())
    document["cases"]["a"] |= times
    file.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match=r"holds what cannot be: case 'a': .*_ms holds"):
        reference.read(file)


@pytest.mark.parametrize("share", [None, 0.0, 0.25])
def test_a_baseline_keeps_how_much_was_not_finite_and_whether_that_is_known(tmp_path, share):
    path = tmp_path / "baseline.json"
    reading = replace(READING, nonfinite_share=share)
    reference.write(path, Reference(readings={"a": reading}, environment=HERE))
    assert reference.read(path).readings["a"].nonfinite_share == share


BROKEN = {
    "an empty file": (lambda text: "", "is empty", "restore it with git"),
    "only blanks": (lambda text: " \n\n", "is empty", "restore it with git"),
    "half a file": (lambda text: text[: len(text) // 2], "line", "restore it with git"),
    "a merge conflict": (
        lambda text: text.replace(
            '   "macs": 5,\n', '<<<<<<< HEAD\n   "macs": 5,\n=======\n   "macs": 6,\n>>>>>>> feature\n', 1
        ),
        "unresolved merge conflict at line 12",
        "finish the merge",
    ),
    "a newer schema": (lambda text: text.replace('"schema": 1', '"schema": 99'), "has schema 99", "upgrade afftool"),
    "an older schema": (lambda text: text.replace('"schema": 1', '"schema": 0'), "has schema 0", "--write-baseline"),
    "no schema": (lambda text: '{"cases": {}}', "no schema number", "--write-baseline"),
    "another document": (lambda text: "[1, 2]", "no schema number", "--write-baseline"),
    "no cases": (lambda text: '{"schema": 1}', "lacks what it should hold", "--write-baseline"),
    "a word for a number": (
        lambda text: text.replace("5,", '"five",', 1),
        "macs is 'five', no whole number",
        "--write",
    ),
    "not JSON": (lambda text: "params: 5\n", "is not JSON", "restore it with git"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_baseline_that_cannot_be_used_is_refused_with_what_to_do(file, kind):
    spoil, problem, hint = BROKEN[kind]
    file.write_text(spoil(file.read_text()))
    with pytest.raises(BaselineError) as refused:
        reference.read(file)
    assert problem in refused.value.message
    assert hint in refused.value.hint
    assert refused.value.exit_code == 5


def test_a_truncated_file_is_called_truncated_wherever_it_ends(file):
    text = file.read_text()
    for length in range(1, len(text) - 2, 7):
        file.write_text(text[:length])
        with pytest.raises(BaselineError):
            reference.read(file)


def test_a_missing_or_unreadable_baseline_says_how_to_write_one(tmp_path):
    with pytest.raises(BaselineError, match="there is no baseline") as missing:
        reference.read(tmp_path / "none.json")
    assert "--write-baseline" in missing.value.hint
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BaselineError, match="cannot be read"):
        reference.read(tmp_path / "binary.json")
    with pytest.raises(BaselineError, match="cannot be read"):
        reference.read(tmp_path)


def test_a_baseline_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BaselineError, match="cannot be written"):
        reference.write(tmp_path / "taken" / "b.json", Reference(readings={}, environment=HERE))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_another_torch_is_refused_but_its_cpu_and_cuda_builds_are_one():
    found = Reference(readings={}, environment=HERE)
    found.check_software(replace(HERE, torch="2.13.0+cu130"))
    with pytest.raises(BaselineError, match=r"torch 2\.13\.0, here is torch 2\.14\.0") as refused:
        found.check_software(replace(HERE, torch="2.14.0"))
    assert "torch==2.13.0" in refused.value.hint


def test_another_machine_is_named_by_what_differs():
    found = Reference(readings={}, environment=HERE)
    assert found.other_machine(replace(HERE, afftool="2", memory_bytes=5)) is None
    assert found.other_machine(replace(HERE, cpu="another", cores=4)) == (
        "cpu one there, another here; cores 2 there, 4 here"
    )
    assert found.other_machine(replace(HERE, compiler="g++ 12")) == "its fingerprint differs"


AS_TORCH_HAS_IT = {"float32_matmul_precision": "highest", "conv_fp32_precision": "tf32", "cudnn_benchmark": False}


def test_torch_s_own_arithmetic_is_not_in_the_file_and_another_makes_times_incomparable(tmp_path):
    usual, tuned = replace(HERE, **AS_TORCH_HAS_IT), replace(HERE, **AS_TORCH_HAS_IT | {"cudnn_benchmark": True})
    reference.write(tmp_path / "usual.json", Reference(readings={}, environment=usual))
    reference.write(tmp_path / "here.json", Reference(readings={}, environment=HERE))
    assert (tmp_path / "usual.json").read_text() == (tmp_path / "here.json").read_text()
    assert reference.read(tmp_path / "usual.json").other_machine(usual) is None
    reference.write(tmp_path / "tuned.json", Reference(readings={}, environment=tuned))
    there = reference.read(tmp_path / "tuned.json")
    assert there.other_machine(usual) == "cudnn_benchmark on there, as usual here"
    assert Reference(readings={}, environment=usual).other_machine(tuned) == "cudnn_benchmark as usual there, on here"
