"""How loops are compiled."""

import numpy as np
import pytest

from core.compiled import ANY_ORDER, AS_WRITTEN, compiled, prefetch


@compiled(AS_WRITTEN)
def rounded(x, out):
    for i in range(x.size):
        out[i] = (x[i] + np.float32(1.5 * 2**23)) - np.float32(1.5 * 2**23)


@compiled(ANY_ORDER)
def total(x, out):
    rounded(x, out)
    found = 0.0
    for i in range(x.size):
        found += out[i]
    return found


def test_a_loop_is_compiled_as_written_whoever_calls_it():
    """In any order, what is added and taken away again would be nothing, and nothing rounded."""
    x = np.linspace(-3, 3, 40, dtype=np.float32)
    out = np.zeros_like(x)
    assert total(x, out) == np.rint(x).sum()
    np.testing.assert_array_equal(out, np.rint(x))


@compiled(AS_WRITTEN)
def fetched(x, ahead):
    found = 0.0
    for i in range(x.size):
        prefetch(x, i + ahead)
        found += x[i]
    return found


@pytest.mark.parametrize("ahead", [0, 3, 1 << 40])
def test_what_is_fetched_ahead_may_lie_anywhere(ahead):
    x = np.arange(10, dtype=np.float32)
    assert fetched(x, ahead) == x.sum()
    assert "prefetch" in "".join(fetched.inspect_llvm().values())
