"""The page of what only a live account can settle: whole entries, files that are there, and commands that AWS would understand.

`gpulease` commands are parsed with those of all pages (test_examples.py). `aws` commands are held against botocore's models:
the operation exists, each option is one of its parameters, and those that it requires are given.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages

PAGE = pages.read("docs/live-drills.md")
ENTRIES = [part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]]
PARTS = ("**We assume**", "**It matters in**", "**Settle it**", "**Costs**", "**If it is false**")
GLOBAL = {"query", "region", "profile", "output"}
RENAMED = {("run-instances", "count"): ("MinCount", "MaxCount"), ("run-instances", "subnet-id"): ("SubnetId",)}
CUSTOM = {("ec2-instance-connect", "open-tunnel")}
"""Made by the command line itself out of a signed address; no API has an operation of that name."""


def aws_lines() -> list[str]:
    found = []
    for language in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        found += [line for line in language.splitlines() if line.startswith("aws ")]
    return found


@cache
def model(service: str) -> Any:
    import botocore.session

    return botocore.session.Session().get_service_model(service)


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.partition("\n")[0][:40] for entry in ENTRIES])
def test_every_entry_is_whole(entry: str) -> None:
    assert [part for part in PARTS if part not in entry] == []
    assert "```sh" in entry
    places = re.findall(r"`([\w/.-]+\.(?:py|md))`", entry.partition("**It matters in**")[2].partition("**Settle it**")[0])
    assert places and [place for place in places if not (pages.ROOT / place).is_file()] == []


def test_the_entries_are_numbered() -> None:
    assert [int(entry.partition(".")[0]) for entry in ENTRIES] == list(range(1, len(ENTRIES) + 1))


@pytest.mark.parametrize("line", aws_lines(), ids=lambda line: line[:60])
def test_every_aws_command_is_one(line: str) -> None:
    from botocore import xform_name

    _, service, operation, *words = shlex.split(re.sub(r"\$\(.*?\)\"", 'FILLED"', line))
    if (service, operation) in CUSTOM:
        return
    found = {xform_name(name, "-"): name for name in model(service).operation_names}
    assert operation in found, f"{service} has no {operation}"
    shape = model(service).operation_model(found[operation]).input_shape
    all_members = shape.members if shape else {}
    members = {xform_name(name, "-"): name for name in all_members}
    given: set[str] = set()
    for option in [word[2:] for word in words if word.startswith("--")]:
        names = RENAMED.get((operation, option)) or ((members[option],) if option in members else ())
        assert names or option in GLOBAL, f"{operation} has no --{option}"
        given |= set(names)
    optional = {name for name, member in all_members.items() if "idempotencyToken" in member.metadata or name == "clientToken"}
    assert set(shape.required_members if shape else ()) - given - optional == set()


def test_every_live_drill_is_on_the_page() -> None:
    from provisioner.drill.layers import LAYERS

    assert "gpulease drill --live --region us-east-1\n" in PAGE
    named = set(re.findall(r"--only ([a-z-]+)", PAGE))
    assert named <= {layer.name for layer in LAYERS if layer.live}


def test_the_page_is_found_from_those_that_warn() -> None:
    for page in ("docs/how-it-lets-go.md", "docs/quickstart.md"):
        assert "live-drills.md" in pages.read(page), page
    assert Path(pages.ROOT / "docs/live-drills.md").is_file()
