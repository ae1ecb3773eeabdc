"""A review of modules that do not run, or not as a fusion does: it ends well, and says what is the matter."""

from __future__ import annotations

import copy
import inspect

import planted_fusions
import pytest
from planted_fusions import planted

from afftool.inspect.checks import CHECKS, NEEDS, review
from afftool.inspect.finding import Finding


def by_check(name: str) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in review(planted(name)):
        found.setdefault(finding.check, []).append(finding)
    return found


@pytest.mark.parametrize(("name", "says"), [("Raises", "ValueError: nope"), ("Exits", "SystemExit: 3")])
def test_a_module_that_never_runs_is_one_fault_that_names_its_line(name: str, says: str) -> None:
    (finding,) = list(review(planted(name)))
    assert (finding.check, finding.severity) == ("output", "fault")
    lines, first = inspect.getsourcelines(getattr(planted_fusions, name).forward)
    assert f"{says} ({planted_fusions.__file__}:{first + len(lines) - 1})" in finding.what
    assert finding.measured["runs"] is False


def test_a_module_that_exits_on_a_shape_it_does_not_like_refuses_it() -> None:
    found = by_check("ExitsOnOne")
    assert set(found) == set(CHECKS)
    assert [f.severity for f in found["mismatched shapes"]] == ["ok"]
    assert "SystemExit" in found["batch of 1"][0].what


def test_of_a_tuple_the_first_map_is_reviewed() -> None:
    found = by_check("TwoOutputs")
    assert "returns a tuple" in found["output"][0].what
    assert set(found) == set(CHECKS)
    assert "plain sum" in found["output scale"][0].what
    assert not [f for findings in found.values() for f in findings if f.severity == "unknown"]


def test_nothing_is_approved_of_that_was_compared_with_not_a_number() -> None:
    found = by_check("Infinite")
    assert found["output"][0].severity == "fault"
    for check in NEEDS["finite"]:
        assert [f.severity for f in found[check]] == ["unknown"], check
        assert "not finite" in found[check][0].what
    assert found["graph breaks"][0].severity == "ok"


def test_no_gradient_is_looked_at_where_the_output_is_cut_from_autograd() -> None:
    found = by_check("Detached")
    for check in NEEDS["trainable"]:
        assert [f.severity for f in found[check]] == ["unknown"], check
    assert "trains with a batch of 1" not in [f.what for f in found["batch of 1"]]
    assert found["output scale"][0].severity == "ok"


def test_lazy_layers_are_given_their_weights_first() -> None:
    found = by_check("Lazy")
    bad = [f.what for findings in found.values() for f in findings if f.severity in ("fault", "unknown")]
    assert bad == []
    assert found["dead parameters"][0].measured["params"] == (8 * 4 + 4) + 2 * 4 + (4 * 8 + 8)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_module_that_cannot_be_copied_is_built_again() -> None:
    with pytest.raises(RuntimeError):
        copy.deepcopy(planted("Normed").module())
    found = by_check("Normed")
    assert [f.what for findings in found.values() for f in findings if f.severity in ("fault", "unknown")] == []


@pytest.mark.parametrize("name", ["Infinite", "Breaks", "Lazy", "FixedBatch", "RootOfZero"])
def test_torch_says_nothing_beside_the_findings(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    list(review(planted(name)))
    assert capfd.readouterr() == ("", "")
