"""For the whole suite: hypothesis judges by examples, never by how busy the machine is; signals mean what they mean.

Under nohup, and in a shell's background, SIGHUP or SIGINT is ignored and every child inherits that; `gpulease` respects
it, as it should. Tests that send these signals need them unignored, whoever started the suite and how.
"""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("gpulease", deadline=None, database=None)
settings.load_profile("gpulease")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured and did not assert (`record_property("measured", ...)`)."""
    reports = [report for found in terminalreporter.stats.values() for report in found if isinstance(report, pytest.TestReport)]
    said = sorted(
        {str(value) for report in reports if report.when == "call" for name, value in report.user_properties if name == "measured"}
    )
    if said:
        terminalreporter.section("measured")
        for line in said:
            terminalreporter.write_line(line)
