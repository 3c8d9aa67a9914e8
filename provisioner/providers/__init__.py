"""Finding a cloud by name.

Ours are named here; anybody else's are entry points of the group `provisioner.providers`, each a class with the five
verbs of `model.Provider` whose keyword arguments are its `settings()`. A plugin's author runs `conformance` on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from provisioner.errors import UsageError
from provisioner.model import Json, Provider

OURS = {
    "aws": "provisioner.providers.aws:AwsProvider",
    "static": "provisioner.providers.static:StaticProvider",
}


def names() -> list[str]:
    """What a user may write after --provider."""
    return sorted({*OURS, *(point.name for point in entry_points(group="provisioner.providers"))})


def connect(name: str, settings: Mapping[str, Json]) -> Provider:
    """The provider of that name, reaching the account that `settings` (no secrets) describe."""
    if name == "sim":
        from provisioner.providers.sim import SimProvider

        return SimProvider.connect(settings)
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        return cast(Provider, getattr(import_module(module), attribute)(**settings))
    for point in entry_points(group="provisioner.providers"):
        if point.name == name:
            return cast(Provider, point.load()(**settings))
    raise UsageError(f"no provider is called {name!r}", why=f"known: {', '.join(names())}", next="gpulease show providers")
