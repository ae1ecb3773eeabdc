"""The timeline of an allocator: pure bookkeeping first, then against the real one."""

import torch

from afftool.measure.memory.allocations import Block, Event, Timeline, record

# a and b overlap; the address of a is used again
EVENTS = [Event(10, 0xA, 100), Event(20, 0xB, 50), Event(30, 0xA, -100), Event(40, 0xA, 70), Event(50, 0xB, -50)]


def test_blocks_live_from_their_allocation_to_their_release_though_addresses_repeat() -> None:
    blocks = sorted(Timeline(EVENTS).blocks, key=lambda block: block.born)
    assert blocks == [Block(0xA, 100, 0, 2), Block(0xB, 50, 1, 4), Block(0xA, 70, 3, None)]


def test_a_peak_is_found_within_its_phase_and_includes_what_was_alive_before() -> None:
    timeline = Timeline(EVENTS, [("first", 5, 25), ("second", 35, 60)])
    assert timeline.peak(timeline.phases["first"]).nbytes == 150
    peak = timeline.peak(timeline.phases["second"])
    assert (peak.nbytes, timeline.allocated(5)) == (120, 70)
    assert sum(block.nbytes for block in timeline.alive(peak.at)) == peak.nbytes


def test_an_empty_phase_has_the_peak_it_began_with() -> None:
    timeline = Timeline(EVENTS, [("between", 32, 38)])
    assert timeline.peak(timeline.phases["between"]).nbytes == 50


def test_the_release_of_an_older_block_makes_no_block() -> None:
    timeline = Timeline([Event(1, 0xC, -10), Event(2, 0xD, 5)])
    assert [block.address for block in timeline.blocks] == [0xD]
    assert timeline.allocated(2) == -5


def test_a_recording_sees_exactly_the_bytes_that_tensors_took() -> None:
    with record(torch.device("cpu")) as recording:
        with recording.phase("grow"):
            kept = torch.empty(1000)
            gone = torch.empty(300, dtype=torch.float64)
            del gone
        with recording.phase("quiet"):
            view = kept[10:20].view(2, 5)
    timeline = recording.timeline
    assert timeline.peak(timeline.phases["grow"]).nbytes == 4000 + 2400
    assert timeline.peak(timeline.phases["quiet"]).nbytes == 4000
    assert [block.address for block in timeline.alive(len(timeline.events))] == [view.untyped_storage().data_ptr()]
