"""Looking in on a lease: its machine over the system's own ssh, and the logs that were brought home.

`open_ssh` replaces this process: the pinned host key, one key, no agent, no config file, no password. For a machine
of somebody's own the key and the host key are theirs, as the lease's settings say; for a rented one they were made
for the lease. It must not change anything of the lease's.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from provisioner import ledger, providers
from provisioner.clouds import cloud_has_ended, newest
from provisioner.errors import HostError, RefusedError
from provisioner.lease import resource_of
from provisioner.model import Resource
from provisioner.names import OPENINGS, opened
from provisioner.rehearsal.client import attach
from provisioner.remote import through
from provisioner.secret import environment


def open_ssh(name: str, command: list[str]) -> int:
    """Become ssh, on the lease's machine. RefusedError when there is none, or no ssh."""
    folder = ledger.find(name)
    card = folder.card()
    settings, access = card["settings"], card.get("access", {})
    reach = str(access.get("reach", "address"))
    address = _address(folder, reach)
    user, port = str(access.get("user", "ubuntu")), int(access.get("port", 22))
    where = address
    rehearsed = str(settings.get("endpoint") or "")
    if rehearsed and reach == "address":
        where, port = _through_the_rehearsal(folder, rehearsed, address, port)
    if "hostKey" in settings:
        host_key, key = str(settings["hostKey"]), Path(str(settings["identity"]))
    else:
        host_key, key = (folder.path / "keys" / "host_ed25519.pub").read_text().strip(), folder.path / "keys" / "client_ed25519"
    known = folder.path / "keys" / "known_hosts"
    ledger.write_private(known, f"[{where}]:{port} {host_key}\n".encode() if port != 22 else f"{where} {host_key}\n".encode())
    # ssh splits that option's value at blanks, and expands percent signs in it.
    quoted = '"' + str(known).replace("%", "%%") + '"'
    options = ["-F", "none", "-o", f"UserKnownHostsFile={quoted}", "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "PreferredAuthentications=publickey"]
    if reach != "address":
        program = through.argv(reach, address, port, settings.get("profile"), attach(rehearsed).aws() if rehearsed else ("aws",))
        options += ["-o", f"ProxyCommand={shlex.join(program).replace('%', '%%')}"]
    options += ["-i", str(key).replace("%", "%%"), "-p", str(port)]
    try:
        os.execvpe("ssh", ["ssh", *options, f"{user}@{where}", *command], environment())
    except FileNotFoundError:
        raise RefusedError("there is no ssh on this machine", why="looked on the PATH", next="install the OpenSSH client") from None


def show_logs(name: str | None, lines: int) -> str:
    from provisioner.clean import clean_lines

    folder = newest(name)
    parts = []
    for file, what in (("server.log", "inference server"), ("watchdog.log", "watchdog")):
        path = folder.path / file
        if path.is_file() and path.stat().st_size:
            parts += [f"== {what}: {path}", *clean_lines(path.read_text("utf-8", "replace"), last=lines)]
    if parts:
        return "\n".join(parts)
    if ledger.alive(folder):
        look = f"gpulease ssh {folder.id} tail -n {lines} .gpulease/{folder.id}/server.log"
        return f"lease {folder.id} has no log here yet: one is saved when its server stops. On the machine: {look}"
    return f"lease {folder.id} left no log here: one is saved when its server stops, and it had none to save"


def _address(folder: ledger.LeaseFolder, reach: str) -> str:
    for entry in reversed(ledger.standing(folder).entries):
        if entry["kind"] in ("observe", "done") and entry["body"].get("class") in ("instance", "host-lock"):
            if entry["body"].get("phase") not in ("here", "coming"):
                break
            if reach != "address":
                return through.name(str(entry["body"]["id"]), str(entry["body"].get("region", "")))
            if address := entry["body"].get("facts", {}).get("address"):
                return opened(folder.path / OPENINGS, str(address)) or _asked(folder, resource_of(entry["body"]))
    raise RefusedError(f"lease {folder.id} has no machine now", why="its journal shows none that is running", next="gpulease ls --all")


def _asked(folder: ledger.LeaseFolder, machine: Resource) -> str:
    """The opening of its address is lost: whoever has the machine still knows it."""
    card = folder.card()
    seen = providers.connect(card["provider"], card["settings"]).observe(machine)
    if address := str(seen.facts.get("address") or ""):
        return address
    raise RefusedError(f"lease {folder.id} has no machine now", why=f"{machine.id} is {seen.state}", next="gpulease ls --all")


def _through_the_rehearsal(folder: ledger.LeaseFolder, endpoint: str, address: str, port: int) -> tuple[str, int]:
    if cloud_has_ended({"endpoint": endpoint}):
        raise RefusedError(
            f"lease {folder.id} has no machine now", why="its rehearsal cloud has ended, with everything in it", next="gpulease ls --all"
        )
    try:
        return attach(endpoint).route(address, port)
    except OSError as e:
        raise HostError(f"{address} cannot be reached: {e.strerror or e}", why=f"asked {endpoint}", next="gpulease ls") from e
