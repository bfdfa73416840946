from __future__ import annotations

from hypothesis import settings

# The same examples on every machine and run, and no verdict from a stopwatch on a shared one.
settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")
