"""Shared test setup: no deadlines, since machines are noisy; the same examples every time."""

from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("project")
