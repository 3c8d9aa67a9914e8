"""For the whole suite: hypothesis judges by examples, never by how busy the machine is; signals mean what they mean.

Under nohup, and in a shell's background, SIGHUP or SIGINT is ignored and every child inherits that; `gpulease` respects
it, as it should. Tests that send these signals need them unignored, whoever started the suite and how.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from provisioner import journal_fields

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("gpulease", deadline=None, database=None)
settings.load_profile("gpulease")


TOGETHER = {"tests/real/test_vllm.py": "vllm", "tests/kills/test_kills.py": "kills"}
"""Whose tests share what is expensive (an inference server at a time, a batch of kills) and so go to one worker."""

LONG = (
    "tests/kills/",
    "tests/sim/",
    "tests/drill/",
    "tests/mutants/test_mutants.py::test_without_a_mutant",
    "tests/evidence/",
    "tests/packaging/",
)
"""What takes half a minute and more on its own: begun last, it would keep one worker busy while the others have nothing left."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if getattr(config.option, "loadgroup", False):  # so xdist calls it in a worker
        items.sort(key=lambda item: not item.nodeid.startswith(LONG))


LEFT_OUT: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test in which a journal left a field out fails: whoever adds a field names it in `journal_fields.py`, and in the docs.

    Seen in this process as it happens, and in what other processes wrote below the test's own folder.
    """
    LEFT_OUT.clear()
    yield
    if item.get_closest_marker("left_out") is None:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        for path in folder.rglob("journal*.jsonl") if folder else ():
            if path.is_file() and f'"{journal_fields.LEFT_OUT}":'.encode() in path.read_bytes():
                LEFT_OUT.append(str(path))
        assert not LEFT_OUT, f"left out of a journal: {sorted(set(LEFT_OUT))}"


journal_fields.noticed = lambda kind, names: LEFT_OUT.extend(f"{kind}: {name}" for name in names)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`: pytest-xdist 3.8 marks its groups in a way that pytest 9.2 no longer carries, and groups nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return next((group for path, group in TOGETHER.items() if nodeid.startswith(path)), nodeid)

    return Grouped(config, log) if config.getoption("dist") == "loadgroup" else None


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
