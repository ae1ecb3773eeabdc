import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_nvml import FakeNvml, play

from afftool import doctor, environment
from afftool.cli import main
from afftool.free_cores import Room
from afftool.measure.ceilings.bounds import Bounds
from afftool.measure.ceilings.roofline import Ceilings, CeilingsFile
from afftool.nvml import Gpu
from afftool.record import TORCH_DEFAULTS, Environment
from afftool.report.lines import machine, software


def test_the_machine_is_described_and_the_description_survives_storage() -> None:
    here = environment.read("cpu")
    assert here.torch
    assert here.cpu
    assert here.cores >= 1
    assert here.threads >= 1
    assert here.memory_bytes
    assert Environment.from_dict(here.to_dict()) == here
    assert environment.read("cpu").fingerprint == here.fingerprint


def test_another_thread_count_is_another_machine_and_more_free_memory_is_not() -> None:
    here = environment.read("cpu")
    assert dataclasses.replace(here, threads=here.threads + 1).fingerprint != here.fingerprint
    assert dataclasses.replace(here, memory_bytes=1).fingerprint == here.fingerprint


@pytest.fixture
def _two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a large GPU and a small one."""
    boards = [
        SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000, uuid="a"),
        SimpleNamespace(name="NVIDIA T400", total_memory=4_000_000_000, uuid="b"),
    ]
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: boards[int(str(device).rpartition(":")[2])])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: boards[index].name)


@pytest.mark.usefixtures("_two_kinds")
def test_the_gpu_is_the_one_that_runs_and_its_fingerprint_and_ceilings_are_its_own(tmp_path: Path) -> None:
    large, small = environment.read("cuda:0"), environment.read("cuda:1")
    assert (large.gpu, large.gpu_memory_bytes) == ("NVIDIA H200", 150_000_000_000)
    assert (small.gpu, small.gpu_memory_bytes) == ("NVIDIA T400", 4_000_000_000)
    assert small.fingerprint != large.fingerprint
    ceilings = Ceilings(device="cuda:1", bandwidths=((1, 1e9),), flops_per_s={}, launch_s=1e-6)
    CeilingsFile.beside(tmp_path / "runs.sqlite").keep(small.fingerprint, ceilings)
    assert Bounds.of(tmp_path / "runs.sqlite", small, "cuda:1", ("latency",)).ceilings == ceilings
    assert Bounds.of(tmp_path / "runs.sqlite", large, "cuda:0", ("latency",)).ceilings is None


@pytest.mark.usefixtures("_two_kinds")
def test_a_study_on_every_gpu_and_a_bench_on_the_cpu_name_the_first_one_as_they_always_did() -> None:
    first = environment.read("cuda:0")
    assert environment.read("cuda") == environment.read("cpu") == first


AS_TORCH_HAS_IT = ["highest", "ieee", "tf32", False, False, False]
SWITCHED: dict[str, list[object]] = {
    "": AS_TORCH_HAS_IT,
    "torch.set_float32_matmul_precision('highest')": AS_TORCH_HAS_IT,
    "torch.set_float32_matmul_precision('high')": ["high", "tf32", "tf32", False, False, False],
    "torch.backends.cuda.matmul.allow_tf32 = True": ["high", "tf32", "tf32", False, False, False],
    "torch.backends.cudnn.allow_tf32 = False": ["highest", "ieee", "ieee", False, False, False],
    "torch.backends.cudnn.benchmark = True": ["highest", "ieee", "tf32", True, False, False],
    "torch.backends.cudnn.deterministic = True": ["highest", "ieee", "tf32", False, True, False],
    "torch.use_deterministic_algorithms(True)": ["highest", "ieee", "tf32", False, False, True],
    # torch refuses to name one precision for all matrix products once the newer switches were used
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": [None, "tf32", "tf32", False, False, False],
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'": ["highest", "ieee", "ieee", False, False, False],
    "torch.backends.fp32_precision = 'tf32'": [None, "tf32", "tf32", False, False, False],
}
SWITCH = """
import json, os, sys, torch
from types import SimpleNamespace
from afftool import environment
from afftool.cli import main
from afftool.nvml import Gpu
from afftool.record import TORCH_DEFAULTS

torch.cuda.is_available = lambda: True
torch.cuda.get_device_properties = lambda device: SimpleNamespace(name="NVIDIA H200", total_memory=1, uuid="a")
before = environment.read("cuda:0").fingerprint
for switch in json.load(sys.stdin):
    if os.fork():
        os.wait()
        continue
    exec(switch)
    now = environment.read("cuda:0")
    print(json.dumps([now.fingerprint == before, [getattr(now, name) for name in TORCH_DEFAULTS]]), flush=True)
    os._exit(0)
"""


@pytest.mark.long
def test_how_torch_rounds_and_chooses_is_kept_and_another_way_than_its_own_is_another_machine() -> None:
    """In processes of their own: the switches are the process's, and torch forbids to mix the older with the newer."""
    command = [sys.executable, "-W", "error", "-c", SWITCH]
    done = subprocess.run(command, input=json.dumps(list(SWITCHED)), capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [[told == AS_TORCH_HAS_IT, told] for told in SWITCHED.values()]
    assert dict(zip(SWITCHED, found, strict=True)) == dict(zip(SWITCHED, expected, strict=True))


def test_without_a_gpu_there_is_nothing_to_say_about_its_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = environment.read("cpu")
    assert {getattr(here, name) for name in TORCH_DEFAULTS} == {None}


def test_what_is_set_on_the_gpu_is_kept_beside_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = play(monkeypatch, FakeNvml())
    here = environment.read("cuda:0")
    assert (here.gpu_power_limit_w, here.gpu_max_clock_mhz, here.gpu_application_clock_mhz) == (700.0, 1980, 1830)
    assert (here.gpu_mig, here.gpu_compute_mode, here.gpu_locked_clock) == (False, "exclusive process", None)
    assert "NVIDIA H200 (150 GB, 700 W, up to 1,980 MHz, applications at 1,830 MHz, exclusive process)" in machine(here)
    assert "TF32 in convolutions" in software(here)
    locked = dataclasses.replace(here, gpu_locked_clock="base")
    assert "locked at base" in machine(locked)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    unknown = environment.read("cuda:0")
    assert (unknown.gpu, unknown.gpu_power_limit_w, unknown.gpu_mig) == ("NVIDIA H200", None, None)
    assert here.fingerprint == locked.fingerprint == unknown.fingerprint
    assert Environment.from_dict(here.to_dict()) == here
    nvml.unsupported = {"power", "clocks", "applications", "mig", "mode"}
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert environment.read("cuda:0") == unknown


def test_a_slice_of_a_gpu_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, FakeNvml())
    board = SimpleNamespace(name="NVIDIA A100-SXM4-40GB MIG 1g.5gb", total_memory=1, uuid="a")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: board)
    assert environment.read("cuda:0").gpu_mig is True


def test_software_says_how_torch_was_switched() -> None:
    switched = Environment(
        afftool="1", python="3", matmul_fp32_precision="tf32", conv_fp32_precision="tf32", cudnn_benchmark=True,
        cudnn_deterministic=False, deterministic_algorithms=True,
    )  # fmt: skip
    told = "TF32 in matrix products, TF32 in convolutions, cuDNN benchmark, deterministic algorithms"
    assert told in software(switched)
    exact = dataclasses.replace(switched, matmul_fp32_precision="ieee", conv_fp32_precision="ieee")
    assert "TF32" not in software(exact)


@pytest.mark.usefixtures("_two_kinds")
def test_the_doctor_speaks_of_the_gpu_that_was_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answered(monkeypatch, tmp_path, capsys, "doctor")
    assert found["environment"]["gpu"] == "NVIDIA T400"
    assert found["fingerprint"] == environment.read("cuda:1").fingerprint


@pytest.mark.usefixtures("_two_kinds")
def test_a_bench_keeps_the_gpu_that_was_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answered(monkeypatch, tmp_path, capsys, "bench", "--measure", "cost", "--size", "7", "--fusion", "add")
    assert found["environment"]["gpu"] == "NVIDIA T400"
    assert {record["device"] for record in found["records"]} == {"cuda:1"}


def answered(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, Any]:
    """What a command says of the second GPU."""
    words = (*words, "--device", "cuda:1", "--json", "--store", str(folder / "runs.sqlite"))
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit):
        main()
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.usefixtures("_two_kinds")
def test_the_doctor_names_every_kind_of_gpu_there_is() -> None:
    check = next(check for check in doctor.checks() if check.name == "CUDA")
    assert check.found.endswith("1 x NVIDIA H200, 1 x NVIDIA T400")


def test_every_check_that_is_not_fine_says_what_to_do() -> None:
    checks = list(doctor.checks())
    assert {"torch", "C++ compiler", "CUDA", "triton", "threads"} <= {check.name for check in checks}
    for check in checks:
        assert check.found
        assert check.advice or check.state == "ok", check


def test_a_compiler_named_in_cxx_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    environment.cpp_compiler.cache_clear()
    environment.compiler_version.cache_clear()
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    try:
        assert environment.cpp_compiler() is None
        check = next(check for check in doctor.checks() if check.name == "C++ compiler")
        assert check.state == "missing"
        assert "no-such-compiler" in check.found
    finally:
        environment.cpp_compiler.cache_clear()
        environment.compiler_version.cache_clear()


def test_a_loaded_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.free_cores.room", lambda: None)
    monkeypatch.setattr(environment, "load_per_core", lambda: 3.0)
    check = next(check for check in doctor.checks() if check.name == "load")
    assert (check.state, "spread" in check.advice) == ("warn", True)


def test_a_core_that_is_busy_now_is_named_whatever_the_last_minute_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "load_per_core", lambda: 0.1)
    monkeypatch.setattr("afftool.free_cores.room", lambda: Room(cores=2, others=1.0))
    check = next(check for check in doctor.checks() if check.name == "load")
    assert check.state == "warn"
    assert check.found == "other processes keep 1 of 2 cores busy; 0.1 per core in the last minute"


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, afftool.environment, afftool.stats; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_a_real_gpu_is_named_by_torch_and_its_settings_are_beside_its_fingerprint() -> None:
    last = torch.cuda.device_count() - 1
    here = environment.read(f"cuda:{last}")
    assert here.gpu == torch.cuda.get_device_name(last)
    assert here.gpu_memory_bytes == torch.cuda.get_device_properties(last).total_memory
    assert None not in {getattr(here, name) for name in TORCH_DEFAULTS if name != "float32_matmul_precision"}
    new = [f.name for f in dataclasses.fields(Environment) if f.metadata.get("later")]
    bare = dataclasses.replace(here, **dict.fromkeys(new))
    switched = any(getattr(here, name) != usual for name, usual in TORCH_DEFAULTS.items())
    assert (here.fingerprint != bare.fingerprint) == switched


@pytest.mark.gpu
def test_nvml_tells_what_is_set_on_a_real_gpu() -> None:
    pytest.importorskip("pynvml")
    here = environment.read("cuda:0")
    if Gpu.of("cuda:0") is None:
        pytest.skip("NVML does not know this GPU")
    assert here.gpu_max_clock_mhz is None or 100 < here.gpu_max_clock_mhz < 10_000
    assert here.gpu_power_limit_w is None or 5 < here.gpu_power_limit_w < 5_000
    assert here.gpu_compute_mode in (None, "default", "exclusive process", "exclusive thread")
