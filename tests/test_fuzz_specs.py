"""A thousand random texts: each is a spec that says itself again, or an error that says what to do."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from random_specs import fusion_text, host_text

from afftool.cli import main
from afftool.errors import AfftoolError
from afftool.spec import CaseSpec, FusionSpec, HostSpec

SEED = 11


def read(kind: Any, text: str) -> Any:
    """The spec, or why there is none; any other exception is a fault."""
    try:
        return kind.parse(text)
    except AfftoolError as error:
        return error


@pytest.mark.parametrize(("kind", "write"), [(FusionSpec, fusion_text), (HostSpec, host_text)])
def test_a_text_is_a_spec_that_says_itself_again_or_an_error_with_a_hint(kind, write) -> None:
    draw = random.Random(SEED)
    kinds: Counter[str] = Counter()
    for number in range(500):
        text = write(draw)
        spec = read(kind, text)
        if isinstance(spec, AfftoolError):
            assert spec.message, repr(text)
            assert spec.hint, f"{number}: {text!r}: {spec.message}"
            assert spec.exit_code == 2
            kinds["refused"] += 1
            continue
        kinds["read"] += 1
        assert kind.parse(spec.text) == spec, f"{number}: {text!r} is {spec.text!r}"
        assert kind.parse(spec.text).text == spec.text
        hash(spec)
        with contextlib.suppress(AfftoolError):
            words = {"fusion": spec} if kind is FusionSpec else {"fusion": FusionSpec.parse("aff"), "host": spec}
            channels = 16 if kind is FusionSpec or spec.text == "module" else None
            case = CaseSpec(**words, channels=channels, size=(8,) * words["fusion"].ndim, batch=2)
            assert CaseSpec.from_fields(case.fields()) == case, text
            assert case.identity == CaseSpec.from_fields(case.fields()).identity
            kinds["cases"] += 1
    assert min(kinds[name] for name in ("refused", "read", "cases")) >= 50, kinds


@pytest.mark.parametrize("option", ["--fusion", "--host"])
def test_what_is_typed_ends_in_a_result_or_in_one_error_and_never_in_a_traceback(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kind, write = (FusionSpec, fusion_text) if option == "--fusion" else (HostSpec, host_text)
    draw = random.Random(SEED + 1)
    texts = [write(draw) for _ in range(300)]
    bad = [text for text in texts if isinstance(read(kind, text), AfftoolError)]
    good = [text for text in texts if text not in bad]
    endings: Counter[int] = Counter()
    for text in bad[:12] + good[:8]:
        words = ["bench", "-m", "cost", "-s", "8", "-b", "2", "--baseline", "none", f"{option}={text}"]
        words += ["-c", "8"] if option == "--fusion" else ["--fusion", "add"]
        monkeypatch.setattr(sys, "argv", ["afftool", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        code = int(stop.value.code or 0)
        assert code in (0, 2, 6), (text, said.err)
        assert "Traceback" not in said.err + said.out, (text, said.err)
        assert code != 2 or ("error: " in said.err or "Error" in said.err or "Usage" in said.err), (text, said.err)
        endings[code] += 1
    assert endings[0] >= 2, endings
    assert endings[2] >= 12, endings
