"""Imports go down the floors only, and a few things are nowhere in the source.

Every file is parsed, never imported, so that what a function imports late is seen too. A new module at the top of
`provisioner/` must be given a floor here before it may import anything or be imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for package in ("provisioner", "cost")
    for path in sorted((ROOT / package).rglob("*.py"))
}

FLOORS: dict[str, int] = {
    **dict.fromkeys(("cost", "model", "errors", "data", "clean", "yamlsafe", "times", "secret", "extras"), 0),
    **dict.fromkeys(("scope", "journal", "journal_fields", "holdings", "lease", "names"), 1),
    **dict.fromkeys(("providers", "rehearsal", "remote", "runtimes", "evals", "evidence", "decide"), 2),
    **dict.fromkeys(("profile", "profile_fields", "profile_sections", "plan", "ledger", "drills"), 3),
    **dict.fromkeys(("guards", "watchdog", "closing", "baseline", "reap", "caller"), 3),
    **dict.fromkeys(("life", "identify", "launching", "interruption", "serving", "measure", "run", "rehearsed", "schedule"), 3),
    **dict.fromkeys(
        (
            "report",
            "drill",
            "offering",
            "cli_offers",
            "prepare",
            "cli_prepare",
            "reap_command",
            "cli_export",
            "cli_proof",
            "corroborate",
            "list_prices",
            "reconcile",
            "handing_over",
        ),
        4,
    ),
    **dict.fromkeys(
        ("render", "afterwards", "clouds", "options", "doctor", "commands", "listing", "shipped", "visit", "terminal", "cli", "__main__"), 4
    ),
}

LONG = {"provisioner/evals/client.py": "one file, because it travels to the machine as one"}

FORBIDDEN = {
    "AutoAddPolicy": "a host key is pinned, never taken on trust",
    "StrictHostKeyChecking=no": "a host key is pinned, never taken on trust",
    "shell=True": "commands are lists",
    "os.system": "commands are lists",
    "yaml.load(": "YAML is read by yamlsafe",
    "yaml.safe_load(": "YAML is read by yamlsafe",
    "verify=False": "certificates are checked",
    "import pickle": "nothing is unpickled",
    "raise NotImplementedError": "what is not there is not offered",
    "TODO": "an issue holds it",
    "FIXME": "an issue holds it",
}
ALLOWED = {
    ("yaml.safe_load(", "provisioner/rehearsal/host_cloudinit.py"): "reads user-data as cloud-init on a real machine would",
}

SLEEPERS = {
    "provisioner/scope.py": "is the sleep that a signal wakes",
    "provisioner/watchdog.py": "a process of its own that nothing but SIGKILL is meant to end",
    "provisioner/journal.py": "a tenth of a second, before any money",
    "provisioner/evals/local.py": "fiftieths of a second, while that process ends",
    "provisioner/providers/sim.py": "a cloud for tests, on real time",
}


def unit(module: str) -> str:
    """ "provisioner.remote.ssh" -> "remote"; the package itself, which holds only the version, is ""."""
    parts = module.split(".")
    return "cost" if parts[0] == "cost" else parts[1] if len(parts) > 1 else ""


def module_of(name: str) -> str:
    parts = name.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Every module of ours that a file names in an import, at any depth, with the line."""
    here = module_of(name).split(".")
    package = here if name.endswith("__init__.py") else here[:-1]
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" if stem == "provisioner" else stem for alias in node.names]
        for found in names:
            if found.split(".")[0] in ("provisioner", "cost"):
                yield node.lineno, found


def refused(above: str, below: str) -> str:
    """Why `above` may not import `below`; "" when it may."""
    if above == below or below in ("", "__version__"):
        return ""
    for name in (above, below):
        if name not in FLOORS:
            return f"{name} has no floor: write it into FLOORS"
    if above == "cost":
        return "cost imports nothing of ours"
    if FLOORS[below] > FLOORS[above]:
        return f"floor {FLOORS[above]} imports floor {FLOORS[below]}"
    if FLOORS[above] == FLOORS[below] == 2:
        return "two folders of floor 2 meet in run.py, not in each other"
    return ""


def code(text: str) -> list[tuple[int, str]]:
    """Lines without comments and docstrings: those may name what is forbidden."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[number - 1] = ""
    return [(number, re.sub(r"(^|\s)#.*", "", line)) for number, line in enumerate(lines, 1)]


def test_imports_go_down_the_floors() -> None:
    wrong = []
    for name, text in SOURCES.items():
        above = unit(module_of(name))
        for line, module in imported(name, text):
            why = refused(above, unit(module)) if above else "the package itself must stay free to import"
            wrong += [f"{name}:{line}: {module}: {why}"] if why else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("above", "below"),
    [("lease", "run"), ("remote", "providers"), ("cost", "model"), ("evals", "unheard_of"), ("model", "lease"), ("plan", "cli")],
)
def test_an_arrow_up_or_sideways_would_be_seen(above: str, below: str) -> None:
    assert refused(above, below)


@pytest.mark.parametrize(
    ("above", "below"), [("cli", "run"), ("run", "plan"), ("remote", "lease"), ("lease", "cost"), ("remote", "remote")]
)
def test_an_arrow_down_is_free(above: str, below: str) -> None:
    assert not refused(above, below)


@pytest.mark.parametrize(
    "text",
    [
        "import provisioner.run",
        "from provisioner import run",
        "from provisioner.run import story",
        "from .. import run",
        "from ..run import story",
        "def f():\n    from provisioner.run import story",
        "if TYPE_CHECKING:\n    from provisioner.run import story",
    ],
)
def test_an_import_is_seen_in_every_form(text: str) -> None:
    assert [unit(module) for _, module in imported("provisioner/remote/imagined.py", text)] == ["run"]


def test_every_module_opens_with_its_design_note() -> None:
    bare = [name for name, text in SOURCES.items() if text.strip() and not ast.get_docstring(ast.parse(text))]
    assert not bare


def test_no_file_is_longer_than_400_lines() -> None:
    long = {name: lines for name, text in SOURCES.items() if (lines := len(text.splitlines())) >= 400 and name not in LONG}
    assert not long, "asking to be two"


def test_what_is_never_done_is_nowhere() -> None:
    wrong = [
        f"{name}:{number}: {word}: {why}"
        for name, text in SOURCES.items()
        for number, line in code(text)
        for word, why in FORBIDDEN.items()
        if word in line and (word, name) not in ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_every_wait_is_the_scopes() -> None:
    """Or a signal could not wake it. In the rehearsal other processes wait; `= time.sleep` is only a default."""
    wrong = [
        f"{name}:{number}"
        for name, text in SOURCES.items()
        if name not in SLEEPERS and not name.startswith("provisioner/rehearsal/")
        for number, line in code(text)
        if re.search(r"\btime\.sleep\(|from time import .*\bsleep\b", line)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_exceptions_named_here_are_needed() -> None:
    assert not [name for name in LONG if len(SOURCES.get(name, "").splitlines()) < 400]
    assert not [name for name in SLEEPERS if "time.sleep" not in SOURCES.get(name, "")]
    assert not [key for key in ALLOWED if key[0] not in SOURCES.get(key[1], "")]


def test_two_files_of_tests_are_never_taken_for_one() -> None:
    """pytest tells files apart by their package, or else by their bare name."""
    bare = [path.name for path in (ROOT / "tests").rglob("*.py") if not (path.parent / "__init__.py").exists()]
    assert sorted(set(bare)) == sorted(bare)


def test_no_address_of_an_index_and_no_path_of_a_machine_is_in_the_repository() -> None:
    """A lock or a script that names where this machine found a package would work here only."""
    told = re.compile(r"--(extra-)?index-url|--find-links|file:///|(?<![\w.])/(root|work|opt/(wheels|pypi))/")
    files = [
        ROOT / name
        for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml", "Makefile", ".ci/run", ".pre-commit-config.yaml")
    ]
    found = [f"{path.name}:{n}" for path in files for n, line in enumerate(path.read_text().splitlines(), 1) if told.search(line)]
    assert not found
