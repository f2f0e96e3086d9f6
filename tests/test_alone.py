"""Work in a thread of its own, and what it reports told by the thread that waits."""

import threading
import time

import pytest

from deploy.engines.alone import Relay, run_alone


def test_the_result_comes_back_and_all_is_told_here_and_in_order():
    here, told = threading.current_thread(), []

    def progress(done, total, note=""):
        assert threading.current_thread() is here
        told.append((done, total, note))

    def listen(severity, text):
        assert threading.current_thread() is here
        told.append((severity, text))

    relay = Relay(progress, listen)

    def work():
        assert threading.current_thread() is not here
        for i in range(1000):
            relay.listen("info", f"line {i}")
        relay.progress(99, 100, "last")
        return "plan"

    assert run_alone(work, relay, threading.Event()) == "plan"
    assert [line for line in told if line[0] == "info"] == [
        ("info", f"line {i}") for i in range(1000)
    ]
    assert told[-1] == (99, 100, "last")


def test_what_the_work_raises_is_raised_here():
    def work():
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        run_alone(work, Relay(lambda *_: None, None), threading.Event())


@pytest.mark.parametrize("error", [ValueError("full"), KeyboardInterrupt()])
def test_a_failure_to_tell_ends_the_work_at_its_next_step_and_is_raised_here(error):
    failed, ended = threading.Event(), []

    def progress(done, total, note=""):
        failed.set()
        raise error

    relay = Relay(progress, None)

    def work():
        relay.progress(1, 2)
        failed.wait(30)
        try:
            for _ in range(3000):
                time.sleep(0.01)
                relay.progress(2, 2)
        except type(error) as err:
            ended.append(err)

    with pytest.raises(type(error)):
        run_alone(work, relay, threading.Event())
    assert ended == [error]


def test_after_a_stop_lines_are_told_and_steps_are_not():
    told, stop = [], threading.Event()
    relay = Relay(lambda *step: told.append(step), lambda *line: told.append(line))

    def work():
        stop.set()
        relay.progress(1, 2)
        relay.listen("error", "stopped")

    run_alone(work, relay, stop)
    assert told == [("error", "stopped")]
