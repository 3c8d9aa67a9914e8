"""For the whole suite: hypothesis judges by examples, never by how busy the machine is."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gpulease", deadline=None, database=None)
settings.load_profile("gpulease")
