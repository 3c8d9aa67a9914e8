"""What is said when something goes wrong: a next step that exists, one line for one thing, and JSON where JSON was asked for."""

from __future__ import annotations

import ast
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from provisioner import cli as command_line
from provisioner import errors
from provisioner.errors import GpuleaseError
from provisioner.render import Story, error_text, folded, table
from provisioner.terminal import bug
from tests.cli.conftest import NOBODY, Cli

ROOT = Path(__file__).parents[2]
SOURCES = {path.relative_to(ROOT): path.read_text("utf-8") for path in sorted((ROOT / "provisioner").rglob("*.py"))}
DATA = {path.relative_to(ROOT): path.read_text("utf-8") for where in ("profiles", "playbooks") for path in (ROOT / where).glob("*.yaml")}
COMPOSITION = [
    "run",
    "life",
    "serving",
    "measure",
    "guards",
    "closing",
    "plan",
    "clouds",
    "commands",
    "doctor",
    "caller",
    "render",
    "options",
    "cli",
    "terminal",
    "visit",
    "ledger",
    "reap",
]
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GpuleaseError)}


def commands() -> dict[str, set[str]]:
    """Every command, and its options."""
    group = typer.main.get_command(command_line.app)
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for sub, one in {"": command, **getattr(command, "commands", {})}.items():
            found[f"{name} {sub}".strip()] = {o for p in one.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    return found


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the program, and the files that ship with it."""
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.JoinedStr):
                yield str(path), "".join(v.value if isinstance(v, ast.Constant) else "LEASE" for v in node.values)  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield str(path), node.value
    for path, text in DATA.items():
        yield str(path), text


PROSE = {"user", "agent", "asks", "is", "does", "needs", "relies", "knows", "removes", "claims", "reads", "imports", "units", "rehearsal"}
PROSE |= {"are", "nor", "LEASE", "profile", "instead", "in", "or", "and"}


def test_every_command_that_is_named_exists() -> None:
    known, wrong = commands(), []
    for where, text in texts():
        for name, rest in re.findall(r"\bgpulease ([A-Za-z-]+)((?: +(?!gpulease)[\w$@:./<>\[\]{}=-]+)*)", text):
            words = rest.split()
            full = f"{name} {words[0]}" if words and f"{name} {words[0]}" in known else name
            if name.startswith("-") or (full not in known and name in PROSE):
                continue
            wrong += [f"{where}: gpulease {name}"] if full not in known else []
            wrong += [f"{where}: gpulease {name} {w}" for w in words if w.startswith("--") and w.split("=")[0] not in known.get(full, ())]
    assert not wrong, "\n".join(wrong)


def test_every_page_that_is_named_exists() -> None:
    named = {(where, page) for where, text in texts() for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|json)", text)}
    assert len(named) >= 5
    assert not [f"{where}: {page}" for where, page in sorted(named) if not (ROOT / page).is_file()]


def test_every_schema_that_is_shown_has_a_name_and_a_version() -> None:
    found = {m for _, text in texts() for m in re.findall(r"\bgpulease/[a-z]+/[0-9]+\b", text)}
    assert {
        f"gpulease/{one}/1" for one in ("run", "plan", "ls", "release", "reap", "proof", "recheck", "report", "doctor", "error")
    } <= found


@pytest.mark.parametrize("module", COMPOSITION)
def test_every_error_of_the_composition_says_what_to_do_next(module: str) -> None:
    bare = []
    for node in ast.walk(ast.parse(SOURCES[Path(f"provisioner/{module}.py")])):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            bare += [f"{module}.py:{node.lineno}"] if "next" not in {word.arg for word in node.keywords} else []
    assert not bare, "\n".join(bare)


def test_an_error_of_several_lines_keeps_them_and_none_can_pass_for_ours() -> None:
    e = GpuleaseError("two things\n  now:   nothing is running\x1b[2J", why="a\nnow: b", next="c\u2028d")
    lines = error_text(e, "$1 so far").splitlines()
    assert lines[0] == "error: two things" and lines[-1] == "  now:   $1 so far"
    assert [line for line in lines if line.startswith("  now:")] == lines[-1:]
    assert "\x1b" not in "".join(lines) and error_text(GpuleaseError("")) == "error: "


def test_a_table_is_made_of_harmless_lines() -> None:
    assert table([["a\nb", "\x1b]0;x\x07c\u202e"]]) == "a b  c?"


def test_a_bug_is_told_with_the_lines_that_are_needed_to_find_it() -> None:
    try:
        {}["x"]
    except KeyError as e:
        told = error_text(bug(e))
    assert told.startswith("error: a bug in gpulease: KeyError") and "test_words.py" in told and "next:  report it" in told


UNKNOWABLE = [
    ["plan", "smoke", "--nope", "--json"],
    ["plan", "--json"],
    ["run", "smoke", "--minutes", "1", "--json"],
    ["run", "smoke", "--minutes", "soon", "--json"],
    ["release", "--json"],
    ["ls", "extra", "--json"],
    ["nothing", "--json"],
    ["--json"],
]


@pytest.mark.parametrize("words", UNKNOWABLE, ids=" ".join)
def test_a_command_line_that_cannot_be_understood_is_one_document_too(words: list[str], cli: Cli) -> None:
    said = cli.process(*words)
    assert said.code == 2 and said.err == ""
    answer = said.answer
    assert (next(iter(answer)), answer["schema"], answer["error"], answer["exit"]) == ("schema", "gpulease/error/1", "UsageError", 2)
    assert answer["what"] and answer["next"].startswith("gpulease") and answer["now"].startswith("nothing")
    told = cli.process(*[word for word in words if word != "--json"]).err
    assert "--json" not in words[1:] or [told.count(f"\n  {part}:") for part in ("why", "next", "now")] == [1, 1, 1], told


@pytest.mark.parametrize("words", [["verify"], ["verify", "x", "--nope"], ["verify", "x", "--require", "faith"], ["verify", "/no/such"]])
def test_two_means_something_else_to_verify(words: list[str], cli: Cli) -> None:
    assert cli.process(*words).code == 3
    assert cli.process(*words, "--json").answer["exit"] == 3


FAILING = [
    ["ls"],
    ["ls", "--all"],
    ["plan", "smoke"],
    ["plan", "nope"],
    ["run", "smoke"],
    ["release", "nobody"],
    ["reap"],
    ["proof"],
    ["proof", "--path"],
    ["proof", "--recheck"],
    ["proof", "nobody"],
    ["report"],
    ["report", "nobody"],
    ["doctor", "nope"],
]


@pytest.mark.parametrize("words", FAILING, ids=" ".join)
def test_every_answer_is_exactly_one_document_that_begins_with_its_schema(words: list[str], cli: Cli) -> None:
    said = cli(*words, "--json")
    assert next(iter(said.answer)) == "schema" and "Traceback" not in said.err
    assert said.answer.get("exit", said.code) == said.code


def test_a_bug_is_one_document_and_its_own_code(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(every: bool) -> None:
        raise ZeroDivisionError("nobody foresaw it \ud800")

    monkeypatch.setattr("provisioner.listing.list_table", broken)
    said = cli("ls", "--json")
    assert said.code == 1 and said.answer["error"] == "ZeroDivisionError" and "test_words.py" in said.answer["why"]
    assert "a bug in gpulease" in cli("ls").err


def test_json_holds_no_byte_that_a_terminal_would_act_on(cli: Cli) -> None:
    said = cli("plan", "/no/\x1b[2J\x9b31m\u202e.yaml", "--json")
    assert said.code == 2 and said.out.isascii() and "\x1b" not in said.out
    json.loads(said.out)


LONG = "nothing is running; everything seen gone 20:42:45 UTC; spent $0.02 (at most $0.03), and some words more so that it is long"


@pytest.mark.parametrize("label", ["  now:   ", "  why:   ", "error: ", "verdict   ", "WRONG    AWS credentials  ", "         "])
@pytest.mark.parametrize("columns", [40, 80])
def test_a_long_sentence_goes_on_below_its_own_beginning(label: str, columns: int) -> None:
    first, *more = folded(label + LONG, columns).split("\n")
    assert first.startswith(label) and more and all(line.startswith(" " * len(label)) for line in more)
    assert " ".join([first[len(label) :], *(line.strip() for line in more)]) == LONG, "nothing is lost and no word is cut"
    assert columns == 40 or all(len(line) <= columns for line in (first, *more))
    assert folded(label + LONG, None) == label + LONG, "a file or a pipe gets one line"


@pytest.mark.parametrize(
    "line",
    [
        f"  next:  {LONG}",
        f"proof     /state/runs/{LONG}",
        f'      "why": "{LONG}",',
        f"*/15 * * * * out=$(gpulease reap --go 2>&1) {LONG}",
        f'          "{LONG}"',
    ],
)
def test_what_may_be_copied_is_never_broken(line: str) -> None:
    assert folded(line, 40) == line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_story_keeps_to_the_width_of_the_terminal_and_a_command_to_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    out = Terminal()
    story = Story(out, lambda: "$0.02")
    story.tell("verify", LONG)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines) and lines[0].endswith("$0.02") and lines[1].startswith(" " * 20)
    assert " ".join(line[20:].removesuffix("$0.02").strip() for line in lines) == LONG
    story.tell("keep", LONG)
    assert LONG in out.getvalue().splitlines()[-1]


@pytest.mark.parametrize("words", [["release", "nope"], ["logs", "nope"], ["ssh", "nope"], ["proof", "nope"], ["export", "nope"]])
def test_every_error_says_what_it_costs_now(words: list[str], cli: Cli) -> None:
    said = cli(*words)
    assert (
        said.code == 2
        and said.err.rstrip().splitlines()[-1]
        == "  now:   nothing, as far as this computer knows: it has no lease that may still cost money"
    )


def test_what_could_not_be_seen_is_not_called_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    said = cli("reap", "--endpoint", NOBODY, "--json")
    assert said.code == 20 and "what the provider has was not seen" in said.answer["now"], said


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"a: &x 1\nb: *x\n"], ids=["empty", "binary", "anchors"])
def test_a_file_that_cannot_be_read_has_a_next_step(text: bytes, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text)
    said = cli("plan", str(tmp_path / "mine.yaml"), "--json")
    assert said.code == 4 and "gpulease show profiles" in said.answer["next"] and "mine.yaml:1" in said.answer["what"]
