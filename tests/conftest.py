"""Settings shared by all tests."""

import os

import pytest
from hypothesis import settings

from deploy.engines.flavour_kinds import installed_flavours
from deploy.machines.host import find_gpus

# Shared CI machines are slow now and then; a deadline would measure them, not the code.
settings.register_profile("dev", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A check that needs a GPU and had none is not run, which is neither passed nor failed."""
    if item.get_closest_marker("gpu"):
        gpus = find_gpus()
        if not gpus.devices:
            pytest.skip(f"not run: it needs a GPU; here: {gpus.problem}")
        if not installed_flavours():
            pytest.skip("not run: no TensorRT is installed")
