"""Parts that run at once add to the sums one behind the other, and end together when one fails."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.comparison.turns import GivenUp, Turns

PLACES = [(piece, 0, what) for piece in range(8) for what in (0, 1)]


def test_every_place_is_passed_in_the_order_of_the_parts():
    turns, passed = Turns(), []

    def run(part):
        wait = np.random.default_rng(part)
        for place in PLACES:
            time.sleep(wait.uniform(0, 2e-3))
            with turns.at(part, place):
                passed.append((place, part))
        turns.end(part)

    for part in range(4):
        turns.begin(part)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, reversed(range(4))))
    for place in PLACES:
        assert [part for at, part in passed if at == place] == [0, 1, 2, 3]


def test_a_part_may_leave_places_out():
    turns = Turns()
    turns.begin(0)
    turns.begin(1)
    with turns.at(0, (3, 0, 0)):
        pass
    with turns.at(1, (1, 0, 0)):  # behind that of part 0
        pass
    turns.end(0)
    with turns.at(1, (9, 0, 0)):
        pass


def test_no_part_waits_for_one_that_will_not_come():
    turns = Turns()
    turns.begin(0)
    turns.begin(1)
    found = []

    def wait():
        try:
            with turns.at(1, (0, 0, 0)):
                found.append("passed")
        except GivenUp:
            found.append("given up")

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    turns.give_up()
    thread.join(10)
    assert found == ["given up"]
    with pytest.raises(GivenUp), turns.at(0, (0, 0, 0)):
        pass
