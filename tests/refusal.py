"""Check that something is refused as a user should be told of it."""

import pytest

from core.errors import InputError


def refused(what, *parts, hint=""):
    """Call ``what``; it must raise an InputError that says all ``parts``, and ``hint``."""
    with pytest.raises(InputError) as caught:
        what()
    for part in parts:
        assert str(part) in caught.value.problem
    assert hint in caught.value.hint
    return caught.value
