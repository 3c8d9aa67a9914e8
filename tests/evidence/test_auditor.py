"""The script for sceptics: short, alone, and of the same opinion as `verify` wherever it has one.

It shares no code with gpulease, so each holds the other: what one derives from a journal and the other does not is a
mistake in one of them. Where they may differ is written in the script, and here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from provisioner.evidence import bundle, verify
from provisioner.evidence.messages import UNREADABLE
from provisioner.evidence.outcome import Report
from tests.evidence import test_forgeries as forgeries
from tests.evidence import test_scheduled as scheduled
from tests.evidence.bundles import copy, forge, write
from tests.evidence.journals import INST, STORIES, Tape

SCRIPT = Path(__file__).parents[2] / "auditor" / "verify_shutdown.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_shutdown", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


auditor = loaded()


def exit_of(codes: set[str]) -> int:
    return 1 if codes - UNREADABLE else 3 if codes else 0


def left_to_verify(report: Report) -> set[str]:
    """The codes of what the script says that it does not judge."""
    said, more = "|".join(auditor.NOT_COMPARED), "|".join(auditor.MORE)
    part = rf"(?:(?:{said})\b|(?:run|instances\[\d+\])\.(?:{more})\b)"
    loose = {"E110": rf"schema: (\$\.predicate\.{part}|\$journal: no cost can be worked out|\$aws/)", "E301": part, "E512": "attestation"}
    codes = {
        p.code for p in report.problems if p.code in ("E401", "E701", "E102", "E105", "E106", "E107", "E109") or re.match("E[56]0", p.code)
    }
    return codes | {p.code for p in report.problems if p.code in loose and re.match(loose[p.code], p.message)}


def agree(folder: Path, report: Report | None = None) -> tuple[int, int]:
    """Both exit codes, after holding them to each other."""
    report = report or verify.verify(folder)
    found, _, _ = auditor.check(str(folder))
    mine, theirs = {bad.code for bad in found}, {p.code for p in report.problems}
    if exit_of(mine) != exit_of(theirs):
        said = report.text(), [f"{b.code} {b}" for b in found]
        rest = exit_of(theirs - left_to_verify(report))
        assert exit_of(mine) != 1 == exit_of(theirs) and rest in (0, exit_of(mine)), said  # what it does not judge is a contradiction
    return exit_of(mine), exit_of(theirs)


def test_it_is_short_stands_alone_and_imports_the_standard_library_only() -> None:
    text = SCRIPT.read_text("utf-8")
    assert len(text.splitlines()) <= 600
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    outside = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name.split(".")[0] for name in outside} == {"cryptography"}


@pytest.mark.parametrize("story", STORIES)
def test_every_honest_story_is_taken_by_both(story: str, tmp_path: Path) -> None:
    assert agree(copy(story, tmp_path / "b")) == (0, 0)


@pytest.mark.parametrize("listed", [True, False])
def test_a_machine_that_a_fleet_made_is_told_of_by_both_and_a_look_without_fleets_is_none(listed: bool, tmp_path: Path) -> None:
    tape = Tape()
    scheduled.through_a_fleet(tape)
    tape.remove("fleet", scheduled.FLEET)
    for kind in ("g6.xlarge", "g6.2xlarge"):
        tape.observe("instance", f"{INST[:-1]}{len(kind) % 10}", "gone", "terminated", type=kind)
    tape.observe("instance", INST, "gone", "terminated")
    made = (scheduled.fleet_gone(tape) if listed else tape.quiet().verdict()).end(files={})
    folder = write(tmp_path / "b", made)
    assert agree(folder) == (0, 0)
    assert auditor.check(str(folder))[1]["clean"] is listed


@pytest.mark.parametrize("name", forgeries.STATEMENTS)
def test_a_forged_statement_is_refused_by_both_or_for_what_the_script_leaves_to_verify(name: str, tmp_path: Path) -> None:
    story, change, _ = forgeries.STATEMENTS[name]
    assert agree(forge(tmp_path / "b", story, change))[1] == 1


def test_most_forged_statements_are_refused_by_the_script_too(tmp_path: Path) -> None:
    refused = 0
    for n, (story, change, _) in enumerate(forgeries.STATEMENTS.values()):
        refused += agree(forge(tmp_path / str(n), story, change))[0] == 1
    assert refused >= len(forgeries.STATEMENTS) - 16


def test_rewritten_journals_are_judged_alike(tmp_path: Path) -> None:
    told = [(story, change, False) for story, change, _ in (*forgeries.REFUSED_JOURNALS.values(), *forgeries.WEAKER.values())]
    told += [(story, change, True) for story, change in forgeries.NOT_STOPPED_AT_THIS_TIER.values()]
    for n, (story, change, tokens) in enumerate(told):
        agree(forgeries.rewrite(tmp_path / str(n), story, change, tokens=tokens))


def spoil(folder: Path, name: str, step: int, start: int) -> tuple[int, int]:
    """One bit in every `step`-th byte flipped, one at a time; how many were looked at, and refused."""
    honest, refused, looked = (folder / name).read_bytes(), 0, 0
    for place in range(start, len(honest), step):
        flipped = bytearray(honest)
        flipped[place] ^= 1 << place % 8
        (folder / name).write_bytes(bytes(flipped))
        refused += agree(folder)[0] == 1
        looked += 1
    (folder / name).write_bytes(honest)
    return looked, refused


@pytest.mark.parametrize(
    ("name", "step"), [("journal.jsonl", 700), ("statement.dsse.json", 500), ("signer.pub.json", 13), ("results.json", 199)]
)
def test_a_flipped_bit_is_refused_by_both(name: str, step: int, tmp_path: Path) -> None:
    looked, refused = spoil(copy("normal", tmp_path / "b"), name, step, 3)
    assert looked == refused > 5


@pytest.mark.parametrize("name", ["journal.jsonl", "statement.dsse.json", "signer.pub.json", "results.json", "samples.jsonl"])
@pytest.mark.parametrize("kind", ["missing", "empty", "link", "folder"])
def test_what_cannot_be_read_is_judged_alike(name: str, kind: str, tmp_path: Path) -> None:
    path = copy("normal", tmp_path / "b") / name
    path.unlink()
    match kind:
        case "empty":
            path.touch()
        case "link":
            path.symlink_to("/etc/hostname")
        case "folder":
            path.mkdir()
        case _:
            pass
    assert agree(path.parent)[0] in (1, 3)


def test_it_runs_by_itself_with_openssl_where_there_is_no_cryptography(tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path / "verify_shutdown.py")
    folder = copy("normal", tmp_path / "b")
    (tmp_path / "cryptography.py").write_text("raise ImportError('none here')")  # found first: the script's own folder is
    done = subprocess.run([sys.executable, "verify_shutdown.py", folder], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("client-signed") and "NOT SHOWN" in done.stdout, done.stderr
    other = copy("held", tmp_path / "other")
    shutil.copy(other / "signer.pub.json", folder / "signer.pub.json")
    envelope = folder / "statement.dsse.json"
    envelope.write_bytes((other / "statement.dsse.json").read_bytes().replace(b'"sig":"', b'"sig":"AAAA', 1))
    done = subprocess.run([sys.executable, "verify_shutdown.py", folder], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "E10" in done.stdout


def test_both_know_the_same_names_that_no_subject_may_have() -> None:
    assert set(auditor.OWN.split()) == verify.OWN


def test_the_bundle_names_it_by_hash_in_a_file_that_is_signed(tmp_path: Path) -> None:
    assert hashlib.sha256(SCRIPT.read_bytes()).hexdigest() in bundle.readme("r-1").decode()
    from tests.evidence.bundles import keys
    from tests.evidence.test_bundle import run_folder

    run = run_folder(tmp_path / "r-20261118t120640z-7f3a9k2m", STORIES["normal"]())
    bundle.seal(run, tmp_path / "b", keys(), version="1.0.0")
    assert agree(tmp_path / "b") == (0, 0)
    (tmp_path / "b" / "README.md").write_bytes(b"check it with this other script")
    assert agree(tmp_path / "b") == (1, 1)
