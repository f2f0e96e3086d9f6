"""``bench/gate.py``: gates on models of a known loss come out as they must."""

from collections import Counter

import pytest
from click.testing import CliRunner
from test_make_check import HELD

from bench.gate import Course, gates, main
from deploy.evaluation.predictions_file import read_predictions
from deploy.gate.rules import Rules
from deploy.gate.verdict import Outcome

TOP1 = Rules(agreement=None, sqnr=None)


@pytest.fixture(scope="module")
def predictions():
    return read_predictions(HELD.with_name("baseline.answers.npz"))


def outcomes(predictions, course, runs=40):
    found = Counter(rows[0].outcome for rows in gates(course, predictions, runs, seed=0))
    assert found.total() == runs
    return found


def test_the_same_file_never_alarms(predictions):
    rows = [row for found in gates(Course("", 300, same=True), predictions, 3, 0) for row in found]
    assert {row.outcome for row in rows} == {Outcome.HELD}


def test_a_model_as_good_does_not_alarm_and_a_point_lost_does(predictions):
    good = outcomes(predictions, Course("", 10_000, rules=TOP1))
    assert good[Outcome.REGRESSED] <= 2
    worse = outcomes(predictions, Course("", 10_000, 0.02, 0.01, TOP1))
    assert worse[Outcome.REGRESSED] >= 38
    few = outcomes(predictions, Course("", 300, 0.02, 0.01, TOP1))
    assert few[Outcome.CANNOT_TELL] >= 30


def test_the_true_loss_is_what_was_asked_for(predictions):
    course = Course("", 10_000, 0.02, 0.01, TOP1)
    losses = [rows[0].loss for rows in gates(course, predictions, 100, 1)]
    assert sum(losses) / len(losses) == pytest.approx(1.0, abs=0.06)


def test_it_prints_a_table_of_equal_columns(monkeypatch):
    monkeypatch.setattr("bench.gate._courses", lambda: [Course("nothing", 200, rules=TOP1)])
    done = CliRunner().invoke(main, ["--runs", "4"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[2].split()[-4:] == ["tell", "regressed", "would", "tell"]
    assert lines[3].split()[:3] == ["nothing", "4", "200"]
    assert max(map(len, lines[2:4])) <= 102
