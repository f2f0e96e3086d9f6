"""The arithmetic of `strata bench`: turns, percentiles, ratios, verdicts; a clock of our own."""

import gc
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.bench.figures import (
    Ratio,
    latency_of,
    median_ranks,
    percentile,
    ratio_of,
    turn_ms,
)
from deploy.bench.turns import Aside, Effort, take_turns
from deploy.bench.verdict import is_settled, verdict_of, verdict_text

ALONE = Aside()
SOME = Effort(seconds=2.0, warm_up=0.0)


class Machine:
    """A clock, and models that take a while by it; `speed` says how slow it runs at a time."""

    def __init__(self, speed=lambda _: 1.0):
        self.now_ns, self.speed, self.called = 0, speed, []

    def model(self, name, ms):
        def call():
            self.called.append(name)
            self.now_ns += round(ms * 1e6 * self.speed(self.now_ns / 1e9))

        return call

    def time(self, *models, effort=SOME, aside=ALONE):
        return take_turns(models, effort, aside, clock=lambda: self.now_ns)


def test_a_round_is_abba_and_the_next_one_baab():
    machine = Machine()
    machine.time(machine.model("A", 150.0), machine.model("B", 190.0), effort=Effort(0.0, 0.0))
    assert "".join(machine.called) == "AAABBB" + 3 * ("ABBA" + "BAAB")


@pytest.mark.parametrize(
    ("ms", "calls"), [(0.5, 40), (2.5, 8), (4.0, 8), (30.0, 6), (100.0, 2), (201.0, 1)]
)
def test_a_turn_is_some_calls_and_not_too_long(ms, calls):
    machine = Machine()
    first, _ = machine.time(machine.model("A", ms), machine.model("B", 500.0))
    assert {len(turn) for turn in first} == {calls}


def test_the_first_call_of_a_turn_is_not_counted():
    machine = Machine()
    machine.time(machine.model("A", 4.0), machine.model("B", 100.0))
    assert "".join(machine.called).startswith("AAABBB" + 9 * "A" + 6 * "B" + 9 * "A")


def test_one_model_is_timed_alone():
    machine = Machine()
    (turns,) = machine.time(machine.model("A", 30.0), effort=Effort(seconds=1.8, warm_up=0.0))
    assert turns == ((30.0,) * 6,) * 10


def test_the_time_is_kept_and_six_rounds_are_made_however_long_they_take():
    machine = Machine()
    first, _ = machine.time(machine.model("A", 1000.0), machine.model("B", 1000.0))
    assert len(first) == 12
    machine = Machine()
    machine.time(machine.model("A", 2.5), machine.model("B", 2.5))
    assert 2.0 <= machine.now_ns / 1e9 < 2.2


def test_where_it_is_not_enough_it_takes_up_to_six_times_as_long():
    seen = []

    def enough(turns):
        seen.append(len(turns[0]))
        return len(turns[0]) >= 60

    machine = Machine()
    first, _ = machine.time(
        machine.model("A", 2.5), machine.model("B", 2.5), aside=Aside(enough=enough)
    )
    assert len(first) == 60
    assert seen == list(range(46, 61, 2))  # asked only once the time is over
    machine = Machine()
    never = Aside(enough=lambda _: False)
    machine.time(machine.model("A", 2.5), machine.model("B", 2.5), aside=never)
    assert 12.0 <= machine.now_ns / 1e9 < 12.2


def test_warm_up_lasts_as_long_as_asked():
    machine = Machine()
    machine.time(machine.model("A", 150.0), effort=Effort(seconds=0.0, warm_up=1.0))
    assert len(machine.called) == 7 + 6


@pytest.mark.parametrize(
    "speed",
    [
        lambda s: 1.0 + 0.3 * s,  # it gets warmer
        lambda s: 2.0 - 0.4 * s,
        lambda s: math.exp(0.25 * s),
    ],
)
def test_a_drift_cancels(speed):
    machine = Machine(speed)
    first, second = machine.time(machine.model("A", 2.0), machine.model("B", 2.4))
    ratio = ratio_of(first, second)
    assert ratio.value == pytest.approx(1.2, abs=0.005)
    assert ratio.high - ratio.low < 0.01


def test_one_after_the_other_a_drift_would_not_cancel():
    machine = Machine(lambda s: 1.0 + 0.3 * s)
    (first,) = machine.time(machine.model("A", 2.0))
    (second,) = machine.time(machine.model("A", 2.0))
    count = min(len(first), len(second)) // 2 * 2
    assert ratio_of(first[:count], second[:count]).value > 1.2


@pytest.mark.parametrize("seed", range(5))
def test_two_that_are_equal_are_equal_on_a_noisy_machine(seed):
    """A call in five is interrupted, for up to five times its time."""
    noise = random.Random(seed)
    machine = Machine(lambda _: noise.choice([1, 1, 1, 1, noise.uniform(1, 5)]))
    turns = machine.time(machine.model("A", 5.0), machine.model("B", 5.0))
    ratio = ratio_of(*turns)
    assert ratio.value == pytest.approx(1.0, abs=0.03)
    assert verdict_of(ratio) in {"equal", "undecided"}


def test_a_tenth_slower_is_found_on_a_noisy_machine():
    noise = random.Random(0)
    machine = Machine(lambda _: noise.choice([1, 1, 1, 1, noise.uniform(1, 5)]))
    turns = machine.time(machine.model("A", 5.0), machine.model("B", 5.5))
    assert verdict_of(ratio_of(*turns)) == "slower"
    assert verdict_of(ratio_of(*turns[::-1])) == "faster"


def test_percentiles_are_values_that_were_seen():
    times = [float(n) for n in range(1, 201)]
    assert percentile(times, 90) == 180.0
    assert percentile(times, 99) == 198.0
    assert percentile(times[:99], 99) is None
    assert percentile(times[:100], 99) == 99.0
    assert percentile(times[:9], 90) is None


def test_a_turn_counts_as_its_lower_quartile():
    assert turn_ms((5.0,)) == 5.0
    assert turn_ms((9.0, 5.0)) == 5.0
    assert turn_ms((9.0, 6.0, 5.0, 7.0, 8.0)) == 6.0
    assert turn_ms((90.0, 60.0, 5.0, 5.5, 80.0, 70.0, 85.0, 75.0)) == 5.5


@pytest.mark.parametrize(
    ("low", "high", "settled"),
    [
        (1.04, 3.0, True),
        (0.2, 0.96, True),
        (0.98, 1.03, True),
        (1.01, 1.06, True),
        (0.95, 1.02, False),
        (1.02, 1.09, False),
    ],
)
def test_more_rounds_are_made_until_they_would_say_nothing_new(low, high, settled):
    assert is_settled(Ratio((low + high) / 2, low, high, 20)) is settled


def test_throughput_counts_all_the_time_there_was():
    found = latency_of([(1.0, 1.0), (8.0,)], batch=4)
    assert found.calls == 3
    assert found.p50 == 1.0
    assert found.p99 is None
    assert found.images_per_s == pytest.approx(12 / 0.010)


# Order statistics around a median. Source: David and Nagaraja, table of section 7.1.
@pytest.mark.parametrize(
    ("count", "ranks"), [(6, (1, 6)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15)), (100, (40, 61))]
)
def test_the_interval_of_a_median(count, ranks):
    assert tuple(rank + 1 for rank in median_ranks(count)) == ranks


def test_the_interval_holds_the_median_as_often_as_it_says():
    noise = random.Random(1)
    low, high = median_ranks(15)
    held = 0
    for _ in range(2000):
        values = sorted(noise.expovariate(1.0) for _ in range(15))
        held += values[low] <= math.log(2) <= values[high]
    assert 0.95 <= held / 2000 < 0.99


def test_one_disturbed_round_moves_nothing():
    first = [(10.0,)] * 14
    second = [(12.0,)] * 12 + [(500.0,)] * 2
    ratio = ratio_of(first, second)
    assert ratio.value == pytest.approx(1.2)
    assert ratio.low == pytest.approx(1.2)
    assert ratio.rounds == 7


times = st.lists(st.floats(0.1, 100.0), min_size=12, max_size=12)


@given(times, times)
def test_the_other_way_round_it_is_the_reciprocal(first, second):
    one = ratio_of([(t,) for t in first], [(t,) for t in second])
    other = ratio_of([(t,) for t in second], [(t,) for t in first])
    assert one.value * other.value == pytest.approx(1.0)
    assert one.low * other.high == pytest.approx(1.0)
    assert one.low <= one.value <= one.high


@pytest.mark.parametrize(
    ("ratio", "verdict", "said"),
    [
        (
            (1.18, 1.16, 1.20),
            "slower",
            "INT8 is slower here: 1.18× the time of FP16 (95 %",
        ),
        ((0.80, 0.79, 0.82), "faster", "0.80× the time of FP16, 1.25× its speed"),
        ((1.00, 0.99, 1.01), "equal", "no difference beyond 3 %: INT8 took 1.00×"),
        ((1.02, 0.95, 1.09), "undecided", "no difference that this run can tell"),
        ((1.50, 0.90, 2.10), "undecided", "1.50× the time of FP16 (95 % interval 0.90 to 2.10"),
        ((1.02, 1.01, 1.03), "undecided", "more --seconds"),
    ],
)
def test_verdicts(ratio, verdict, said):
    value = Ratio(*ratio, rounds=20)
    assert verdict_of(value) == verdict
    assert said in verdict_text(value, "FP16", "INT8")


def test_the_collector_of_garbage_waits():
    seen = []
    take_turns([lambda: seen.append(gc.isenabled())], Effort(0.0, 0.0))
    assert not any(seen[3:])
    assert gc.isenabled()
