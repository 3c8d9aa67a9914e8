"""The command `export`, as `cli` has the others: options in, one function called, its answer handed to the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provisioner.options import Json
from provisioner.terminal import askable, complain, confirm, ending, leave


def export(
    lease: Annotated[str | None, typer.Argument(metavar="[LEASE]", help="A lease; without it the newest one.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write, .zip or .pdf; else a zip here.")] = None,
    sign_ssh: Annotated[
        str | None, typer.Option("--sign-ssh", help="Also sign with this ssh key; `agent` takes the agent's first.", metavar="KEY")
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option("--timestamp", help="Also have it dated by this RFC 3161 authority, over the network.", metavar="URL")
    ] = None,
    sigstore: Annotated[
        bool, typer.Option("--sigstore", help="Also sign as who you are, through sigstore; it goes into a public log, for ever.")
    ] = False,
    sigstore_token: Annotated[
        Path | None, typer.Option("--sigstore-token", help="With --sigstore: the OpenID token; else a CI job's own.", metavar="FILE")
    ] = None,
    sigstore_config: Annotated[
        Path | None, typer.Option("--sigstore-config", help="With --sigstore: a service of your own (ClientTrustConfig).", metavar="FILE")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --sigstore publishes.")] = False,
    redact: Annotated[bool, typer.Option("--redact", help="A copy without account, ARN, addresses and names; costs the tiers.")] = False,
    as_json: Json = False,
) -> None:
    """The proof of a lease as one file to hand over: a zip that verifies as the folder does.

    \b
        gpulease export              of the newest lease, here
        gpulease export 7f3a9k2m --to proof.zip
        gpulease export --sign-ssh ~/.ssh/id_ed25519
        gpulease export --sigstore                      in a CI job, as that job
        gpulease export --redact
        gpulease export --to report.pdf     a page to read, with the zip attached
    """
    from provisioner.errors import UsageError
    from provisioner.evidence.keyless import Signing
    from provisioner.handing_over import export_proof

    with ending(as_json):
        if to is not None and to.suffix not in (".zip", ".pdf"):
            raise UsageError(f"--to is {to}", why="the name says what is written: .zip or .pdf", next="gpulease export --to FILE.zip")
        if not sigstore and (sigstore_token or sigstore_config or yes):
            raise UsageError("that goes with --sigstore only", next="gpulease export --sigstore")
        if sigstore and not yes:
            askable("what sigstore publishes cannot be taken back, so it is confirmed once")
        keyless = Signing(sigstore_token, sigstore_config, complain, None if yes else confirm) if sigstore else None
        record, text = export_proof(lease, to, sign_ssh, redact=redact, authority=timestamp, keyless=keyless)
        leave(0, record if as_json else text)
