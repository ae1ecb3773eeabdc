"""What `afftool doctor` says of this machine's ceilings."""

import dataclasses
from pathlib import Path

import pytest

from afftool.cli.doctor import _print_ceilings
from afftool.measure.ceilings.roofline import Ceilings

RATES = {"float32": 400e12, "bfloat16": 800e12}
TOLD = Ceilings(
    device="cuda",
    bandwidths=((1 << 20, 4e12),),
    flops_per_s=RATES,
    matrix_sides={"float32": 4096, "bfloat16": 8192},
    float32_rounding="tf32",
    launch_s=1e-6,
)


def lines(ceilings: Ceilings, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    _print_ceilings(ceilings, Path("ceilings.json"), ())
    rows = [line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "matrix rate" in line]
    return {name.partition(" ")[0]: told.strip() for name, told in rows}


def test_a_matrix_rate_is_told_with_the_size_it_was_reached_at_and_float32_s_with_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = lines(TOLD, capsys)
    assert told["float32"].endswith("(at 4096x4096, in TF32)")
    assert told["bfloat16"].endswith("(at 8192x8192)")
    assert lines(dataclasses.replace(TOLD, float32_rounding="ieee"), capsys)["float32"].endswith("(at 4096x4096)")


def test_what_an_older_calibration_does_not_tell_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    older = Ceilings(device="cuda", bandwidths=TOLD.bandwidths, flops_per_s=RATES, launch_s=1e-6)
    assert all(told.endswith("FLOP/s") for told in lines(older, capsys).values())
