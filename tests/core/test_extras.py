"""How to get what is optional is said by the packages' own names: ours at an index may be anybody's."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from provisioner import extras

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("extra", "package"), [("rehearsal", "moto"), ("sign", "rfc3161-client"), ("sigstore", "sigstore")])
def test_an_extra_is_installed_into_this_python_by_the_names_of_its_packages(extra: str, package: str) -> None:
    python, *pip, wanted = shlex.split(extras.install(extra))
    assert python == sys.executable and pip == ["-m", "pip", "install"] and re.match(rf"{package}[<>=]", wanted)


def test_without_having_been_installed_the_source_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "NAME", "no-such-distribution-here")
    assert "pip install -e '.[sign]'" in extras.install("sign")


def test_nothing_tells_anybody_to_install_our_name_from_an_index() -> None:
    pages = [ROOT / "README.md", ROOT / "llms.txt", *(ROOT / "docs").rglob("*.md"), *(ROOT / "provisioner").rglob("*.py")]
    telling = re.compile(r"(?:pipx? install|uv tool install|uvx|inject) +['\"]?gpulease\b(?!`, for a name)")
    assert not [f"{page}: {found[0]}" for page in pages for found in telling.finditer(page.read_text("utf-8"))]
