"""What installs an optional part: its packages by their own names, into the Python that this runs in.

Never by ours: whatever stands under our name at a package index need not be this program. So it is true of a clone and of a wheel alike.
"""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires

NAME = "gpulease"


def install(extra: str) -> str:
    """The command, for an extra of pyproject.toml."""
    try:
        parts = [text.partition(";") for text in requires(NAME) or []]
    except PackageNotFoundError:  # run from its source, without having been installed
        return f"python -m pip install -e '.[{extra}]'   (in the folder of the source)"
    packages = [package.strip() for package, _, when in parts if f"extra == '{extra}'" in when.replace('"', "'")]
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
