"""What the pages say of the code is what the code says: helps, codes, keys, names, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from provisioner.errors import Exit
from tests.docs import pages

NAMES = [page.relative_to(pages.ROOT).as_posix() for page in pages.PAGES]
HOSTS = {"127.0.0.1", "checkip.amazonaws.com", "login.example.org"}
FOLDERS = ("provisioner", "cost", "tests", "docs", "profiles", "playbooks", "tools", "benchmarks")


def test_every_pasted_part_is_current() -> None:
    tool = pages.tool()
    stale = [page.name for page in tool.pages() if tool.current(page.read_text("utf-8")) != page.read_text("utf-8")]
    assert not stale, "python tools/docs.py --write"


def test_every_command_and_option_is_on_the_page_of_commands() -> None:
    page = pages.read("docs/cli.md")
    parts = {found["words"].strip(): found[0] for found in pages.tool().PART.finditer(page)}
    for name, node in pages.commands():
        part = parts[" ".join(["help", *name])]
        for option in [flag for param in node.params for flag in param.opts if flag.startswith("--")]:
            assert option in part, f"gpulease {' '.join(name)} {option}"
        if not hasattr(node, "commands"):
            assert f"\n## {' '.join(name)}\n" in page


def test_every_help_shows_an_example_first_and_its_exit_codes_last() -> None:
    tool = pages.tool()
    for name, node in pages.commands():
        if not hasattr(node, "commands"):
            shown = tool.help_of(*name)
            assert f"gpulease {' '.join(name)}" in shown.partition("Options:")[0].partition("\n\n")[2], name
            assert "Exit codes:" in shown.rpartition("Show this message and exit.")[2], name


def test_the_table_of_exit_codes_is_the_enum() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", pages.read("docs/cli.md"), re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in Exit]


def test_the_table_of_verifys_exit_codes_is_the_one_in_its_help() -> None:
    rows = re.findall(r"^\| ([0-3]) \| \w", pages.read("docs/proof.md"), re.MULTILINE)
    shown = pages.tool().help_of("verify").rpartition("Exit codes:")[2]
    assert rows == re.findall(r"\b(\d) ", shown)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page, text = pages.ROOT / name, pages.read(name)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        assert "://" not in target, f"{target}: pages are read offline"
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", aim.read_text("utf-8"), re.MULTILINE)
            heads = [re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles]
            assert anchor in heads, target


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_is_named_is_there(name: str) -> None:
    named = re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*[\w-])", pages.read(name))
    relative = [path for path in named if not (pages.ROOT / path).exists() and not (pages.ROOT / name).parent.joinpath(path).exists()]
    assert not relative


@pytest.mark.parametrize("name", NAMES)
def test_no_host_and_no_path_of_some_machine_is_named(name: str) -> None:
    text = pages.read(name)
    assert set(re.findall(r"https?://([^/:\s\"'`)]+)", text)) <= HOSTS
    for word in ("pypi", "/root/", "/tmp/", "/Users/"):
        assert word not in text, word


def test_every_page_is_in_the_index_and_linked_from_the_readme() -> None:
    index, readme = pages.read("llms.txt"), pages.read("README.md")
    for page in (pages.ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in index, page.name
        assert f"(docs/{page.name})" in readme, page.name
    for page in (pages.ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"({page.name})" in pages.read("docs/decisions/README.md"), page.name


def test_every_key_of_a_profile_is_on_its_page() -> None:
    from provisioner import profile

    schema, page = profile.schema(), pages.read("docs/profiles.md")
    for key, node in schema["properties"].items():
        assert f"`{key}`" in page
        section = schema["$defs"].get(str(node.get("$ref") or "").rsplit("/", 1)[-1], {})
        assert all(f"`{key}.{inner}`" in page for inner in section.get("properties", {})), key


def test_every_check_and_threshold_is_on_the_page_of_profiles() -> None:
    from provisioner.evals import score
    from provisioner.evals.limits import THRESHOLDS

    page = pages.read("docs/profiles.md")
    assert [name for name in (*score._CHECKS, *THRESHOLDS) if f"`{name}`" not in page] == []


def test_every_figure_that_a_threshold_needs_is_on_the_page_of_measuring() -> None:
    from provisioner.evals.limits import THRESHOLDS
    from provisioner.evals.stats import LATENCIES

    page = pages.read("docs/measuring.md")
    figures = {rule.figure for name, rule in THRESHOLDS.items() if name.partition("_")[0] not in LATENCIES}
    assert [name for name in (*figures, *LATENCIES) if f"`{name}`" not in page] == []


def test_every_fault_is_on_the_page_of_the_rehearsal() -> None:
    from dataclasses import fields

    from provisioner.rehearsal import faults, host_spec, knobs

    page = pages.read("docs/rehearsal.md")
    names = [*host_spec.FAULTS, *host_spec.ANSWERS, *faults.KINDS, *faults.KNOWN, *knobs.KNOBS, *knobs.REASONS]
    names += [field.name for field in (*fields(knobs.Interruption), *fields(knobs.Stuck))]
    names += [field.name for field in (*fields(faults.Timing), *fields(faults.Fault))]
    assert [name for name in names if f"`{name}`" not in page and f'"{name}": ' not in page] == []
    for field in fields(faults.Timing):
        assert re.search(rf"\| `{field.name}` \| {field.default:g} \|", page), field.name


def test_every_limit_message_and_tier_is_on_the_page_of_the_proof() -> None:
    from provisioner.evidence.limits import LIMITS
    from provisioner.evidence.messages import TEMPLATES
    from provisioner.evidence.verify import LAYERS, TIERS

    page = pages.read("docs/proof.md")
    assert [code for code in (*LIMITS, *LAYERS, *TIERS) if f"`{code}`" not in page] == []
    assert [code for code in TEMPLATES if f"| {code} |" not in page] == []


def test_guards_and_verdicts_are_on_the_page_that_explains_them() -> None:
    from provisioner import guards
    from provisioner.model import Verdict

    assert [name for name in Verdict if f"`{name}`" not in pages.read("docs/how-it-lets-go.md")] == []
    assert [name for name in guards.NAMES if f"`{name}`" not in pages.read("docs/profiles.md")] == []


def test_the_case_and_the_playbook_shown_are_accepted() -> None:
    from provisioner.evals import cases
    from provisioner.remote import playbook

    case = next(text for name, text in pages.blocks("json") if name == "docs/profiles.md")
    assert len(cases.parse(case.encode(), "docs", "docs/profiles.md").cases) == 1
    book = next(text for name, text in pages.blocks("yaml") if name == "docs/playbooks.md")
    assert [step.name for step in playbook.load(book, "docs/playbooks.md").doc.steps][-1] == "enough memory"


PROSE = {"instead", "knows", "needs", "profile", "reads", "rehearsal", "removes", "user"}
"""Words that follow the name of the program in a sentence, and are no commands."""


def _hints() -> Iterator[tuple[str, str]]:
    """Every `gpulease …` in a text of the code that is not a docstring: (where, the words after it)."""
    for path in sorted((pages.ROOT / "provisioner").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "WORD" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inside:
                text = node.value
            for found in re.findall(r"(?<![\w/])gpulease ([a-z]+\b(?: (?:--[\w-]+|\S+))*)", text):
                yield f"{path.relative_to(pages.ROOT)}:{node.lineno}", found


def test_no_message_names_a_command_or_option_that_does_not_exist() -> None:
    known = {name[0] for name, _ in pages.commands() if name}
    options: dict[str, set[str]] = {name[0]: set() for name, _ in pages.commands() if name}
    for name, node in pages.commands():
        if name:
            options[name[0]] |= {flag for param in node.params for flag in param.opts}
    wrong = []
    for where, found in _hints():
        word, *rest = found.split()
        if word in known:
            wrong += [f"{where}: gpulease {found}" for flag in rest if flag.startswith("--") and flag.rstrip(".,;:)`") not in options[word]]
        elif word not in PROSE:
            wrong.append(f"{where}: gpulease {found}")
    assert wrong == []
