"""The command `export`, as `cli` has the others: options in, one function called, its answer handed to the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provisioner.options import Json
from provisioner.terminal import ending, leave


def export(
    lease: Annotated[str | None, typer.Argument(metavar="[LEASE]", help="A lease; without it the newest one.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write, .zip or .pdf; else a zip here.")] = None,
    sign_ssh: Annotated[
        str | None, typer.Option("--sign-ssh", help="Also sign with this ssh key; `agent` takes the agent's first.", metavar="KEY")
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option("--timestamp", help="Also have it dated by this RFC 3161 authority, over the network.", metavar="URL")
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="A copy without account, ARN, addresses and names; costs the tiers.")] = False,
    as_json: Json = False,
) -> None:
    """The proof of a lease as one file to hand over: a zip that verifies as the folder does.

    \b
        gpulease export              of the newest lease, here
        gpulease export 7f3a9k2m --to proof.zip
        gpulease export --sign-ssh ~/.ssh/id_ed25519
        gpulease export --redact
        gpulease export --to report.pdf     a page to read, with the zip attached
    """
    from provisioner.handing_over import export_proof

    with ending(as_json):
        record, text = export_proof(lease, to, sign_ssh, redact=redact, authority=timestamp)
        leave(0, record if as_json else text)
