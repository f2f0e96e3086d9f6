import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.engines.build_progress import TOTAL, BuildProgress, deferred_interrupt


def watcher(seen, stop=None):
    def note(done, total, name):
        seen.append((done, total, name))

    return BuildProgress(note, stop or threading.Event())


def test_inner_phases_take_their_place_in_the_outer_step():
    seen = []
    watch = watcher(seen)
    watch.start("outer", None, 2)
    watch.start("inner", "outer", 4)
    for index in range(4):
        assert watch.step("inner", index)
    watch.finish("inner")
    assert watch.step("outer", 0)
    watch.start("second", "outer", 2)
    watch.step("second", 0)
    watch.finish("second")
    watch.step("outer", 1)
    watch.finish("outer")
    by_name = {}
    for done, _, name in seen:
        by_name.setdefault(name, []).append(done)
    assert by_name["inner"] == [0, 12, 25, 37, 50, 50]
    assert by_name["second"] == [50, 75, 100]
    assert seen[-1] == (TOTAL, TOTAL, "outer")


events = st.lists(
    st.tuples(
        st.sampled_from(["start", "step", "finish"]),
        st.sampled_from("abc"),
        st.sampled_from(["", "a", "b", "c"]),
        st.integers(0, 5),
    ),
    max_size=40,
)


@given(events)
def test_any_order_of_events_keeps_the_bar_between_its_ends_and_rising(events):
    seen = []
    watch = watcher(seen)
    for kind, name, parent, number in events:
        if kind == "start":
            watch.start(name, parent or None, number)
        elif kind == "step":
            watch.step(name, number)
        else:
            watch.finish(name)
    done = [d for d, _, _ in seen]
    assert done == sorted(done)
    assert all(0 <= d <= TOTAL for d in done)


def test_a_stop_is_passed_on():
    stop = threading.Event()
    watch = watcher([], stop)
    watch.start("a", None, 2)
    assert watch.step("a", 0)
    stop.set()
    assert not watch.step("a", 1)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_is_kept_and_stops_the_build(error):
    def fail(done, total, name):
        raise error

    watch = BuildProgress(fail, threading.Event())
    watch.start("a", None, 2)
    assert watch.error is error
    assert not watch.step("a", 0)


def test_without_a_signal_nothing_is_raised():
    with deferred_interrupt() as stop:
        assert not stop.is_set()
    with pytest.raises(ValueError, match="own"), deferred_interrupt():
        raise ValueError("own")
