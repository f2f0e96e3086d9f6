"""Variables of the Makefile that no chain can be made of are refused before anything is made."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(*arguments):
    return subprocess.run(
        ["make", "-n", "help", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("OUT=", "OUT='': give one word, without blanks"),
        ("OUT=a b", "OUT='a b': give one word, without blanks"),
        ("DEPTH=", "DEPTH='': give one word"),
        ("WEIGHTS=my weights.pth", "WEIGHTS='my weights.pth': give one word"),
        ("PRECISION=int4", "PRECISION=int4: choose int8, fp16 or fp32"),
        ("PRECISION=", "PRECISION=: choose int8, fp16 or fp32"),
    ],
)
def test_a_variable_is_refused(variable, says):
    done = make(variable)
    assert (done.returncode, says in done.stderr) == (2, True)


@pytest.mark.parametrize("variable", ["OUT=a", "PRECISION=fp32", "DATA=a b", "TEST=", "MODEL=-a b"])
def test_other_variables_are_taken(variable):
    assert make(variable).returncode == 0
