"""How many examples: few enough for every commit, ten times as many with TASKYARD_TEST_LONG=1."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = 150 if os.environ.get("TASKYARD_TEST_LONG") == "1" else 15

# No deadline: the machine may be busy with other suites.
settings.register_profile("fuzz", max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fuzz")
