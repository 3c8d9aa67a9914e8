"""The pages as tests see them: their text, their fenced blocks, their shell examples.

An example is a line of a ```sh block that starts with `gpulease `. A comment `# ends with N` says its exit code; a
lease in it is called 7f3a9k2m and stands for whatever lease there is.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "llms.txt", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")])
LEASE = "7f3a9k2m"
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    page: str
    line: str  # without its comment
    ends: int

    def __str__(self) -> str:
        return f"{self.page}: {self.line[:90]}"

    @property
    def argv(self) -> list[str]:
        """The words after `gpulease`; what a shell would fill in is one word."""
        words = shlex.split(re.sub(r"\$\([^)]*\)", "FILLED", self.line))
        ends = [at for at, word in enumerate(words) if word in ("|", ">", "&&", ";")]
        return words[1 : ends[0] if ends else None]


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found in _BLOCK.finditer(page.read_text("utf-8")):
            if found[2] == language:
                yield page.relative_to(ROOT).as_posix(), found[3]


def examples() -> list[Example]:
    """Each once, in the order of the pages."""
    found: dict[str, Example] = {}
    for page, text in blocks("sh"):
        for raw in text.splitlines():
            if raw.strip().startswith("gpulease "):
                line, _, comment = raw.strip().partition("  # ") if "  # " in raw else re.split(r"( +# )", raw.strip() + "  # ")[:3]
                ends = re.search(r"ends with (\d+)", comment)
                found.setdefault(line.strip(), Example(page, line.strip(), int(ends[1]) if ends else 0))
    return list(found.values())


def command(argv: list[str]) -> tuple[Any, list[str], list[str]]:
    """The command object that these words name, its name, and the words left for it."""
    import typer.main

    from provisioner.cli import app

    node: Any = typer.main.get_command(app)
    name: list[str] = []
    while hasattr(node, "commands") and argv and not argv[0].startswith("-"):
        assert argv[0] in node.commands, f"there is no command `gpulease {' '.join([*name, argv[0]])}`"
        node = node.commands[argv[0]]
        name.append(argv[0])
        argv = argv[1:]
    return node, name, argv


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command there is."""

    def walk(name: list[str], node: Any) -> Iterator[tuple[list[str], Any]]:
        yield name, node
        for word, child in getattr(node, "commands", {}).items():
            yield from walk([*name, word], child)

    yield from walk([], command([])[0])


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpulease_docs_tool", ROOT / "tools" / "docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
