"""Which cores are free, read off made-up looks at /proc: no time passes here."""

from collections.abc import Callable

import pytest

from afftool.free_cores import Asked, CoreTicks, Room, choose, parse_cores, room, room_between


def look(*busy_s: float, own_s: float = 0.0, taken: float = 0.0) -> CoreTicks:
    return CoreTicks(dict(enumerate(busy_s)), own_s, taken)


def seen(*busy: float, own: float = 0.0, siblings: list[list[int]] | None = None) -> Room:
    """The room on cores that were busy for these shares of ten seconds."""
    end = look(*(share * 10 for share in busy), own_s=own * 10, taken=10.0)
    return room_between(look(*(0.0 for _ in busy)), end, siblings or ())


def test_on_an_idle_machine_all_cores_are_free() -> None:
    assert (seen(0.0, 0.02).taken, seen(0.0, 0.02).free) == (0, 2)


def test_one_busy_core_of_two_leaves_one() -> None:
    assert (seen(1.0, 0.0).taken, seen(1.0, 0.0).free) == (1, 1)


def test_work_that_wanders_between_the_cores_takes_as_much_as_if_it_stayed() -> None:
    assert seen(0.55, 0.45).taken == 1


def test_our_own_work_takes_nothing() -> None:
    assert seen(1.0, 0.0, own=1.0).taken == 0


def test_crumbs_on_many_cores_do_not_add_up_to_a_whole_one() -> None:
    assert seen(*(0.05 for _ in range(64))).free == 64


def test_half_a_core_is_not_yet_taken_and_more_is() -> None:
    assert [seen(share, 0.0, 0.0, 0.0).taken for share in (0.4, 0.6, 1.0)] == [0, 1, 1]
    assert seen(1.0, 0.6, 0.0, 0.0).free == 2


def test_when_every_core_is_busy_one_thread_is_left() -> None:
    assert (seen(1.0, 1.0).taken, seen(1.0, 1.0).free) == (2, 1)


def test_hyperthreads_of_one_core_are_one_core_and_busy_once() -> None:
    there = seen(1.0, 0.0, 0.9, 0.0, siblings=[[0, 2], [1, 3]])
    assert (there.cores, there.taken, there.free) == (2, 1, 1)


def test_a_quota_bounds_what_is_free() -> None:
    assert Room(cores=64, others=0.0, quota=2.5).free == 2
    assert Room(cores=64, others=0.0, quota=0.5).free == 1


def looks(*shares: float) -> Callable[[], CoreTicks]:
    """Looks a second apart, in between which one core of two was busy for these shares; then it is an error to look."""
    total, found = 0.0, [look(0.0, 0.0)]
    for number, share in enumerate(shares, 1):
        total += share
        found.append(look(total, 0.0, taken=float(number)))
    return iter(found).__next__


def test_an_idle_machine_is_looked_at_once() -> None:
    there = room(read=looks(0.0), wait=lambda seconds: None)
    assert there is not None
    assert there.taken == 0


def test_a_burst_that_is_over_at_the_next_look_takes_no_core_and_lasting_work_does() -> None:
    burst, lasting = (room(read=looks(*shares), wait=lambda seconds: None) for shares in ((1.0, 0.0), (1.0, 0.9, 1.0)))
    assert burst is not None
    assert lasting is not None
    assert (burst.taken, lasting.taken) == (0, 1)


def test_where_the_system_does_not_tell_nothing_is_known() -> None:
    assert room(read=lambda: None, wait=lambda seconds: None) is None


STAT = """cpu  300 0 100 9000 5 0 0 50 0 0
cpu0 100 20 30 4000 5 1 2 40 0 0
cpu1 200 0 70 5000 0 0 0 10 0 0
cpu10 7 0 0 5000 0 0 0 0 0 0
intr 5
ctxt 77"""


def test_proc_stat_is_read_core_by_core_with_what_the_hypervisor_took_and_only_where_we_may_run() -> None:
    told = parse_cores(STAT.splitlines(), {0, 10}, 100, own_s=0.5, taken=3.0)
    assert told == CoreTicks({0: 1.93, 10: 0.07}, 0.5, 3.0)
    assert parse_cores(STAT.splitlines(), {5}, 100, own_s=0.0, taken=0.0) is None


ONE_BUSY, IDLE, FULL = Room(2, 1.0), Room(2, 0.0), Room(2, 2.0)


@pytest.mark.parametrize(
    ("asked", "there", "told_outside", "number"),
    [
        (None, IDLE, False, 2),
        ("auto", IDLE, False, 2),
        (1, IDLE, False, 1),
        (2, IDLE, False, 2),
        (None, None, False, 2),
        (None, ONE_BUSY, False, 1),
        ("auto", ONE_BUSY, True, 1),
        (None, ONE_BUSY, True, 2),
        (2, ONE_BUSY, False, 2),
        (None, FULL, False, 1),
    ],
)
def test_free_cores_decide_unless_the_user_did(
    asked: Asked, there: Room | None, told_outside: bool, number: int
) -> None:
    assert choose(asked, 2, there, told_outside=told_outside).number == number


def test_nothing_is_said_of_an_idle_machine() -> None:
    assert [choose(asked, 2, IDLE).note for asked in (None, "auto", 1, 2)] == ["", "", "", ""]


def test_fewer_threads_are_told_with_the_reason_and_how_to_have_all() -> None:
    note = choose(None, 2, ONE_BUSY).note
    assert note.startswith("other processes keep 1 of 2 cores busy: measuring with 1 thread where torch would use 2")
    assert "--threads 2 insists" in note


def test_threads_that_the_user_chose_and_that_have_no_core_are_told_to_wait_for_each_other() -> None:
    note = choose(2, 2, ONE_BUSY).note
    assert "2 threads will wait for each other" in note
    assert "--threads auto (now 1)" in note


def test_with_no_core_free_times_are_told_to_hold_the_wait_for_one() -> None:
    assert "no core is free, so times hold the wait for one" in choose("auto", 2, FULL).note
    assert "no core is free, so times hold the wait for one" in choose(1, 2, FULL).note


def test_a_quota_of_a_large_machine_is_what_is_used_and_named() -> None:
    chosen = choose(None, 32, Room(cores=32, others=0.0, quota=4.0))
    assert chosen.number == 4
    assert chosen.note.startswith("the container may use 4 of 32 cores: measuring with 4 threads")


def test_where_torch_counts_hyperthreads_an_idle_machine_keeps_them_and_a_busy_one_a_share() -> None:
    assert choose(None, 8, Room(cores=4, others=0.0)).number == 8
    assert choose(None, 8, Room(cores=4, others=1.0)).number == 6
