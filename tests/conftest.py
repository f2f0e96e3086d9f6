"""Settings shared by all tests."""

import os

from hypothesis import settings

# Shared CI machines are slow now and then; a deadline would measure them, not the code.
settings.register_profile("dev", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
