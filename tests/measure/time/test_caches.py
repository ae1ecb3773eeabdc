from pathlib import Path

from afftool.measure.time.caches import LAST_LEVEL_BYTES, MOST_BYTES, last_level_bytes


def machine(root: Path, *caches: tuple[int, int, str, str]) -> Path:
    """A system's description of its caches: processor, level, size, and which processors share it."""
    for number, (cpu, level, size, shared) in enumerate(caches):
        index = root / f"cpu{cpu}" / "cache" / f"index{number % 10}"
        index.mkdir(parents=True)
        for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
            (index / name).write_text(text + "\n", encoding="ascii")
    return root


def test_the_last_level_caches_of_all_sockets_count_and_each_but_once(tmp_path: Path) -> None:
    caches = [(0, 2, "1024K", "0"), (0, 3, "32M", "0-1"), (1, 3, "32M", "0-1"), (2, 3, "32768K", "2-3")]
    assert last_level_bytes("cpu", machine(tmp_path, *caches)) == 64 << 20


def test_a_system_that_tells_nothing_or_nonsense_gets_the_default(tmp_path: Path) -> None:
    assert last_level_bytes("cpu", tmp_path) == LAST_LEVEL_BYTES
    assert last_level_bytes("cpu", machine(tmp_path, (0, 3, "many", "0"))) == LAST_LEVEL_BYTES


def test_no_more_than_the_limit_is_believed(tmp_path: Path) -> None:
    assert last_level_bytes("cpu", machine(tmp_path, (0, 3, "2G", "0"))) == MOST_BYTES
