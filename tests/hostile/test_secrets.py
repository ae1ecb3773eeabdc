"""What looks like a secret is in nothing that is stored or said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fuzzing import AT_LENGTH, fuzz
from hypothesis import strategies
from made_up_runs import ENVIRONMENT, record

from afftool.cli import main
from afftool.errors import LoadError
from afftool.failure import Failure
from afftool.formats import renderer
from afftool.masked import command_line, masked
from afftool.record import Run
from afftool.report import bench_report, comparison
from afftool.store import Store

PASS = "hunter2hunter2"
SECRETS = (
    f"https://me:{PASS}@host/x",
    f"https://{PASS}@github.com/a/b",
    f"hub:https://me:{PASS}@host:8080/set?split=test",
    f"ray://me:{PASS}@10.0.0.1:10001",
    f"https://host/x?access_token={PASS}&y=1",
    f"https://host/x?X-Amz-Signature={PASS}",
    f"token={PASS}",
    f"HF_TOKEN={PASS}",
    f"--api-key={PASS}",
    f"password: {PASS}",
    f'{{"client_secret": "{PASS}"}}',
    f"AWS_SECRET_ACCESS_KEY={PASS}",
    f"Authorization: Bearer {PASS}",
    f"Authorization: Basic {PASS}",
    f"curl -H 'authorization: {PASS}'",
    f"Bearer {PASS}",
    f"https://host/x?sv=1&sig={PASS}",
    f"api_key: {PASS}",
    f"hf_{PASS}aaaaaaaa",
    f"ghp_{PASS}aaaaaaaa",
    f"github_pat_{PASS}_aaaaaaaa",
    f"glpat-{PASS}aaaaaaaa",
    f"AKIA{PASS.upper()}",
    f"sk-{PASS}aaaaaaaa",
    f"xoxb-{PASS}",
    f"eyJ{PASS}.eyJ{PASS}.{PASS}",
)
PLAIN = (
    "mypkg.gates:Gate:num_tokens=40000000:token=4:tokens=sixteen",
    "mypkg.gates:Gate:tokens=abcdefgh:key=abcdefgh",
    "git@github.com:me/project.git",
    "--address ray://10.0.0.1:10001",
    "scales=global+local, design=paper-cifar, keyboard=qwertyuiop",
    "/home/me/task-sk-data/hf_home",
    "the basic convolutional2d block of a token mixer; unexpected token: something, no signature: Gate.forward",
    ".afftool/profile/sk-8c-6x6-b2-infer-cpu-eager/report.md",
    "PWD=/home/me/projects",
)


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_masked_wherever_it_stands(text: str) -> None:
    for around in (text, f"cannot read {text}, sorry", f"a\n{text}\nb", f"'{text}'"):
        told = masked(around)
        assert PASS not in told.lower()
        assert "***" in told
        assert masked(told) == told
        assert PASS not in command_line(["afftool", "bench", around]).lower()


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


def test_a_secret_may_be_the_word_after_its_option() -> None:
    told = command_line(["afftool", "bench", "--token", "ab c", "--password", "x", "--fusion", "aff"])
    assert told == "afftool bench --token '***' --password '***' --fusion aff"


def test_a_command_with_bytes_that_are_no_text_can_be_stored() -> None:
    assert command_line(["afftool", "a\udcff\x1b\n"]) == r"afftool 'a\udcff\x1b\n'"


@AT_LENGTH
def test_masking_ends_and_a_second_time_changes_nothing(examples: int) -> None:
    parts = strategies.sampled_from(
        ["token", "=", ":", "://", "@", "a", "hf_", "Bearer ", "Authorization", "***", "'", " ", "\n", PASS]
    )

    def check(pieces: list[str]) -> None:
        told = masked("".join(pieces))
        assert masked(told) == told

    fuzz(examples, strategies.lists(parts, max_size=30), check)


def test_exceptions_are_masked_as_they_become_reasons_and_errors() -> None:
    for text in SECRETS:
        failure = Failure.of(ValueError(f"no: {text}"))
        assert PASS not in (failure.message + failure.reason).lower()
        error = LoadError(f"no: {text}", hint=f"try {text}")
        assert PASS not in f"{error} {error!r} {error.message} {error.hint}".lower()


def test_a_command_in_an_older_store_is_masked_as_it_is_read(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs.sqlite") as store:
        number = store.begin(f"afftool bench --data https://me:{PASS}@host", ENVIRONMENT)
        store.append(number, record("aff"))
        run = store.run(number)
    assert run.command == "afftool bench --data https://***@host"
    for name in ("md", "json", "html", "csv"):
        assert PASS not in renderer(name)(bench_report(run))
        assert PASS not in renderer(name)(comparison([run, run]))


OWN = f"""
from torch import nn

class Bad(nn.Module):
    def __init__(self, channels, token):
        super().__init__()

    def forward(self, x, y):
        raise ValueError("cannot fetch https://me:{PASS}@host/weights")
"""


def test_a_bench_stores_neither_its_command_s_secrets_nor_an_exception_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_TOKEN", PASS)
    (tmp_path / "own_secret.py").write_text(OWN)
    words = ["bench", "--fusion", f"{tmp_path}/own_secret.py:Bad:token={PASS}", "--measure", "cost", "--size", "7"]
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    assert f"https://me:{PASS}" not in said.out + said.err
    with Store.open(".afftool/runs.sqlite") as store:
        stored = store.run()
    assert PASS not in stored.command
    assert "token=***" in stored.command
    assert f"me:{PASS}" not in json.dumps([one.to_dict() for one in stored.records])


def test_the_data_of_a_study_is_stored_without_its_secret() -> None:
    from afftool.study.spec import StudySpec

    text = f'name = "s"\ndata = "hub:https://me:{PASS}@host/set"\n'
    text += 'baseline = "add"\nvariant = [{ fusion = "add" }, { fusion = "aff" }]\n'
    study = StudySpec.from_toml(masked(StudySpec.from_toml(text).to_toml()))
    assert study.data == "hub:https://***@host/set"


def test_a_run_has_no_secret_however_it_was_made() -> None:
    run = Run(id=1, command=f"--token={PASS}", started="", environment=ENVIRONMENT)
    assert run.command == "--token=***"
