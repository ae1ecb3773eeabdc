"""Whatever stands in a project's TOML or a study's: settings that are valid, or one error with a hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuzzing import AT_LENGTH, fuzz
from hypothesis import strategies as st

from afftool.errors import UserError
from afftool.gate import config
from afftool.gate.config import GateConfig
from afftool.gate.reading import METRICS
from afftool.measure.cost.own_formulas import own_formulas
from afftool.plain import field_names
from afftool.spec.amounts import MOST_CASES
from afftool.study.recipe import Recipe
from afftool.study.spec import StudySpec
from afftool.study.variant import Variant

WORDS = [
    *(
        "add",
        "aff",
        "aff:reduction=0",
        "all",
        "resnet:b=1",
        "m:A",
        "a/b.py:C",
        "cpu",
        "cuda",
        "eager",
        "infer",
        "train",
    ),
    *("5%", "nan%", "1e999%", "-1", "0", "1", "1e999", "off", "exact", "time", "short", "shapes:size=16", "9" * 400),
    *("", " ", ",", ":", "=", "\\u0000", "\\u202e", "\\u001b[2J", "\\n", "{channels}", "{1e999}", "{", "x" * 300),
]
SCALARS = [
    *("0", "1", "-1", "2", "8", "1.5", "nan", "inf", "-inf", "1e999", "true", "false", "1979-05-27", "07:32:00"),
    *("9223372036854775807", "99999999999999999999", "0xffffffffffffffffffff", "9" * 5000),
    *(f'"{word}"' for word in WORDS),
]
CASE_KEYS = [
    "fusion",
    "host",
    "channels",
    "size",
    "batch",
    "mode",
    "dtype",
    "memory_format",
    "device",
    "backend",
    "rules",
]
RULES = [*list(METRICS)[:4], "latency_ms", "latncy_ms", "change", "floor", "max", "min"]
KEYS = [*CASE_KEYS, "case", "rules", "baseline", "metrics", "formulas", '"my::op"', '"aten::add"', "a.b", '""']
STUDY_KEYS = [*field_names(StudySpec), "variant", *field_names(Variant), *field_names(Recipe), "tolerance", "exempt"]


def values(keys: list[str]) -> st.SearchStrategy[str]:
    """A value as TOML writes it: a scalar, a list, an inline table."""
    scalar = st.sampled_from(SCALARS)
    return st.recursive(
        scalar,
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
            | st.dictionaries(st.sampled_from(keys), inner, max_size=2).map(
                lambda fields: "{ " + ", ".join(f"{key} = {value}" for key, value in fields.items()) + " }"
            )
        ),
        max_leaves=5,
    )


def documents(start: str, heads: list[str], keys: list[str]) -> st.SearchStrategy[str]:
    """A document that begins well, with lines and sections of every kind before and after."""
    line = st.tuples(st.sampled_from(keys), values(keys)).map(lambda pair: f"{pair[0]} = {pair[1]}\n")
    lines = st.lists(line, max_size=3).map("".join)
    section = st.tuples(st.sampled_from(heads), lines).map("".join)
    sections = st.lists(section, max_size=3).map("".join)
    whole = st.tuples(lines, st.just(start), lines, sections).map("".join)
    return whole | st.tuples(whole, st.integers(0, 400)).map(lambda pair: pair[0][: pair[1]]) | st.text(max_size=60)


def accepted(read: Any, refusals: list[UserError]) -> Any:
    """What was read, or None for a refusal; any other exception is a fault."""
    try:
        return read()
    except UserError as error:
        refusals.append(error)
        return None


@AT_LENGTH
def test_a_project_s_toml_is_a_configuration_or_one_refusal(tmp_path: Path, examples: int) -> None:
    file = tmp_path / "afftool.toml"
    refusals: list[UserError] = []
    read: list[GateConfig] = []

    def check(text: str) -> None:
        file.write_bytes(text.encode(errors="surrogatepass"))
        if (found := accepted(lambda: config.read(file, needs_cases=False), refusals)) is not None:
            assert len(found.cases) <= MOST_CASES
            for case in found.cases:
                for metric in METRICS:
                    rule = found.rules.find(case.name, metric)
                    assert rule.text or rule.off or rule.floor >= 0
                    assert rule.allowed(1.0) >= 0
            read.append(found)

    heads = ["[[case]]\n", "[case]\n", "[rules]\n", "[formulas]\n", "[rules.macs]\n", "[[rules]]\n", "[x]\n"]
    fuzz(examples, documents('[[case]]\nfusion = "add"\n', heads, [*KEYS, *RULES]), check)
    assert read
    assert refusals
    assert all(error.message and error.hint and error.exit_code == 2 for error in refusals)


@AT_LENGTH
def test_a_project_s_formulas_are_a_table_of_operators_or_one_refusal(tmp_path: Path, examples: int) -> None:
    file = tmp_path / "pyproject.toml"
    refusals: list[UserError] = []

    def check(text: str) -> None:
        file.write_bytes(text.encode(errors="surrogatepass"))
        accepted(lambda: own_formulas(tmp_path), refusals)

    heads = ["[tool.afftool]\n", "[[tool.afftool]]\n", "[tool]\n", "[tool.afftool.formulas]\n", "[[tool]]\n", "[x]\n"]
    keys = ["tool", "afftool", "tool.afftool", "formulas", '"my::op"', '"aten::add"', '"aten::no_such"', "my.op"]
    fuzz(examples // 2, documents("[tool.afftool]\n", heads, keys), check)
    assert refusals
    assert all(error.hint for error in refusals)


@AT_LENGTH
def test_a_study_s_toml_is_a_study_that_says_itself_again_or_one_refusal(examples: int) -> None:
    refusals: list[UserError] = []

    def check(text: str) -> None:
        if (found := accepted(lambda: StudySpec.from_toml(text), refusals)) is not None:
            assert len(found.variants) * len(found.seeds) <= MOST_CASES
            assert StudySpec.from_toml(found.to_toml()) == found

    start = '[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"\n'
    heads = ["[[variant]]\n", "[variant]\n", "[recipe]\n", "[budget]\n", "[variant.knobs]\n", "[x]\n", "[[seeds]]\n"]
    fuzz(examples, documents(start, heads, STUDY_KEYS), check)
    assert refusals
    assert all(error.message and error.exit_code == 2 for error in refusals)
