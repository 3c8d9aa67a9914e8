"""Every example of the pages is understood by the command line; those that cost nothing and need no account are run."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs import pages

EXAMPLES = pages.examples()
REHEARSAL = "gpulease run smoke --rehearse --yes"
FREE = {"show", "plan", "verify", "ls", "report", "proof", "logs"}


def _free(example: pages.Example) -> bool:
    return example.argv[0] in FREE and not {"--recheck", "./mine.yaml", "static", "corroborate", "reconcile"} & set(example.argv)


QUICK = [one for one in EXAMPLES if _free(one)]
FAULTS = [one for one in EXAMPLES if one.argv[0] == "run" and "--faults" in one.argv]


@dataclass
class Desk:
    """A fresh user: an empty home, a state folder of its own, no AWS settings."""

    home: Path

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "XDG_", "GPULEASE_", "PYTHON", "HF_"))}
        # The program beside the interpreter that runs the tests, as an installed user has it.
        path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        env |= {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state"), "PATH": path, "AWS_EC2_METADATA_DISABLED": "true"}
        command = ["/bin/sh", "-c", line]
        return subprocess.run(command, env=env, cwd=self.home, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    def asked(self, argv: list[str]) -> tuple[int, str]:
        """How the same program ends and what it prints on stdout, without starting a process for it."""
        from typer.testing import CliRunner

        from provisioner.cli import app

        env: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith(("AWS_", "HF_")))
        env |= {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state"), "AWS_EC2_METADATA_DISABLED": "true"}
        done = CliRunner().invoke(app, argv, prog_name="gpulease", env=env)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    def filled(self, line: str) -> str:
        """With the lease that there is in place of those that the pages name."""
        runs = self.home / "state" / "gpulease" / "runs"
        lease = min(path.name for path in runs.iterdir() if not path.name.endswith(".evidence"))
        line = re.sub(r"r-\d{8}t\d{6}z-\w{8}\.evidence", str(runs / f"{lease}.evidence"), line)
        return line.replace(pages.LEASE, lease[-8:])


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """One rehearsal for all examples, also when several workers share them: the first example of the quickstart as it stands."""
    assert REHEARSAL in {one.line for one in EXAMPLES}
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "docs-desk"
    home.mkdir(exist_ok=True)
    desk = Desk(home)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            done = desk.run(REHEARSAL)
            assert done.returncode == 0, done.stderr[-2000:]
            (home / "done").touch()
    return desk


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_example_is_understood(example: pages.Example) -> None:
    node, name, rest = pages.command(example.argv)
    assert name and not hasattr(node, "commands"), f"gpulease {' '.join(name)} is no whole command"
    node.make_context(f"gpulease {' '.join(name)}", rest)  # raises on an unknown option, a missing or an extra argument


def test_every_command_has_an_example() -> None:
    whole = {" ".join(name) for name, node in pages.commands() if not hasattr(node, "commands")}
    assert whole - {" ".join(pages.command(one.argv)[1]) for one in EXAMPLES} == set()


@pytest.mark.parametrize("example", QUICK, ids=str)
def test_an_example_that_costs_nothing_ends_as_the_page_says(example: pages.Example, desk: Desk) -> None:
    line = desk.filled(example.line)
    if set(line) & set("$>|"):
        done = desk.run(line)
        ended, said = done.returncode, done.stderr
    else:
        ended, said = desk.asked(example.argv)
    assert ended == example.ends, said[-2000:]
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("example", FAULTS, ids=str)
def test_a_rehearsed_fault_ends_as_the_page_says(example: pages.Example, tmp_path: Path) -> None:
    done = Desk(tmp_path).run(example.line)
    assert done.returncode == example.ends, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert "verdict   released" in said or (example.ends == 4 and "nothing was rented" in said)
    assert ("error: " in said) == (example.ends != 0)


DOCUMENTS = {
    "plan/1": ["plan", "smoke", "--rehearse"],
    "ls/1": ["ls", "--all"],
    "proof/1": ["proof"],
    "verify/1": ["verify", "r-20261121t140210z-7f3a9k2m.evidence"],
    "report/1": ["report"],
    "doctor/1": ["doctor", "--provider", "static"],
    "error/1": ["plan", "nosuch"],
}


@pytest.mark.parametrize("schema", DOCUMENTS)
def test_every_field_of_a_json_document_is_on_the_page_of_commands(schema: str, desk: Desk) -> None:
    document = json.loads(desk.asked([desk.filled(word) for word in DOCUMENTS[schema]] + ["--json"])[1])
    assert next(iter(document)) == "schema" and document["schema"] == f"gpulease/{schema}"
    page = pages.read("docs/cli.md")
    said = page[page.index(f"`gpulease/{schema}`") :].partition("<!--")[0]
    fields = set(document) - {"schema"}
    if schema not in ("plan/1", "verify/1"):  # what the lists of those hold is on pages of their own
        rows = [value[0] for value in document.values() if isinstance(value, list) and value]
        fields |= {key for row in rows if isinstance(row, dict) for key in row}
    assert [name for name in sorted(fields) if f"`{name}`" not in said] == []


def test_the_cost_of_the_smoke_profile_is_what_the_plan_says(desk: Desk) -> None:
    from cost import show, show_per_hour

    quote = json.loads(desk.asked(["plan", "smoke", "--rehearse", "--json"])[1])["quote"]
    hourly = sum(line["microUsdPerHour"] for line in quote["lines"])
    for page in ("README.md", "docs/quickstart.md", "docs/costs.md"):
        assert show(quote["atMostMicroUsd"]) in pages.read(page), page
    assert show_per_hour(hourly) in pages.read("docs/costs.md")
    assert f"{quote['deadlineSeconds']} s + {quote['tailSeconds']} s" in pages.read("docs/costs.md")
