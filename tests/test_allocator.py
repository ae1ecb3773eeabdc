import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from afftool import allocator
from afftool.allocator import name_of_allocator, toll

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
NOTHING = Path(os.devnull)

FAULTS = """
import ctypes
from afftool.allocator import keep_freed_memory, page_faults

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults(size=8 << 20, times=20):
    before = page_faults()
    for _ in range(times):
        block = ctypes.c_void_p(libc.malloc(size))
        ctypes.memset(block, 1, size)
        libc.free(block)
    return page_faults() - before

libc.mallopt(-3, 128 << 10)  # the threshold as it is at first, and no longer moving by itself
system = faults()
print(keep_freed_memory(), keep_freed_memory())
faults(times=1)
print(system, faults())
"""


def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    if not GLIBC:
        return  # nothing to keep on this system
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout.split()
    assert told[:2] == ["kept", "kept"]
    assert 4 * int(told[3]) < int(told[2])


def test_elsewhere_nothing_is_set_and_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = allocator.keep_freed_memory.__wrapped__
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: 1 / 0)
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert asked() == "system"
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert asked() == "system"
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert asked() == "jemalloc"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "system"),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, "jemalloc"),
        ({"LD_PRELOAD": "/opt/libother.so:/usr/lib/libtcmalloc_minimal.so.4"}, "tcmalloc"),
        ({"LD_PRELOAD": "/opt/rpmalloc.so"}, "rpmalloc"),
        ({"LD_PRELOAD": "/opt/libfaketime.so"}, "system"),
        ({"MALLOC_TRIM_THRESHOLD_": "2147483647", "MALLOC_MMAP_MAX_": "0"}, "kept"),
        ({"MALLOC_TRIM_THRESHOLD_": "2147483647"}, "tuned"),
        ({"MALLOC_ARENA_MAX": "2"}, "tuned"),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}, "tuned"),
        ({"GLIBC_TUNABLES": "glibc.cpu.hwcaps=x"}, "system"),
    ],
)
def test_the_allocator_is_called_by_its_name(variables: dict[str, str], name: str) -> None:
    assert name_of_allocator(variables, NOTHING) == name


def test_an_allocator_that_is_loaded_another_way_is_seen_too(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 0 0 /usr/lib/x86_64-linux-gnu/libmimalloc.so.2.1\n")
    assert name_of_allocator({}, maps) == "mimalloc"
    assert name_of_allocator({}, tmp_path / "none") == "system"


def test_the_toll_is_what_a_fresh_process_pays_for_pages_it_had_before() -> None:
    told = toll()
    if not GLIBC:
        assert told is None
        return
    assert told is not None
    assert told.allocator == "system"
    assert told.system_faults > 10 * max(1, told.kept_faults)
    assert told.system_faults <= 2 * told.written_bytes / 4096


def test_there_is_no_toll_where_memory_is_kept_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "2147483647")
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    assert toll() is None
