"""The commands `proof` and `verify`: options in, one function called, its answer handed to the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provisioner.options import AwsProfile, Json
from provisioner.terminal import complain, ending, leave

LATER = ("corroborate", "reconcile")


def proof(
    what: Annotated[
        str | None, typer.Argument(metavar="[LEASE|corroborate|reconcile]", help="A lease, without it the newest one; or what to add.")
    ] = None,
    lease: Annotated[str | None, typer.Argument(metavar="[LEASE]", help="After corroborate or reconcile: the lease.")] = None,
    path: Annotated[bool, typer.Option("--path", help="Print only where the proof is.")] = False,
    recheck: Annotated[bool, typer.Option("--recheck", help="Ask the provider again, now.")] = False,
    lookups_only: Annotated[bool, typer.Option("--lookups-only", help="With corroborate: no files of a trail.")] = False,
    as_json: Json = False,
) -> None:
    """The shutdown proof of a lease; later also with what AWS recorded and billed.

    \b
        gpulease proof                        of the newest lease
        gpulease verify "$(gpulease proof --path)"
        gpulease proof corroborate 7f3a9k2m   after a quarter of an hour: CloudTrail's records, a trail's signed files
        gpulease proof reconcile 7f3a9k2m     after two days: what was billed
    """
    from provisioner.errors import UsageError

    with ending(as_json):
        if what in LATER and (path or recheck):
            raise UsageError(f"{what} goes with neither --path nor --recheck", next=f"gpulease proof {what} LEASE")
        if what not in LATER and (lease is not None or lookups_only):
            raise UsageError(
                f"proof does not know {what!r}", why="before a lease stands corroborate or reconcile", next="gpulease proof LEASE"
            )
        if what == "corroborate":
            from provisioner.corroborate import corroborate

            code, record, text = corroborate(lease, lookups_only, complain)
        elif what == "reconcile":
            from provisioner.reconcile import reconcile

            code, record, text = reconcile(lease)
        else:
            from provisioner.commands import show_proof

            code, record, text = show_proof(what, path, recheck)
        leave(code, record if as_json else text)


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An evidence folder, its zip, or its statement.dsse.json.")],
    require: Annotated[str, typer.Option(help="client, identified, recorded, corroborated or billed.", metavar="TIER")] = "client",
    allowed_signers: Annotated[
        Path | None, typer.Option(help="Accept only these keys: a file as ssh-keygen(1) describes it.", metavar="FILE")
    ] = None,
    iid_cert: Annotated[
        list[Path] | None, typer.Option("--iid-cert", help="Also trust this certificate (PEM) for identity documents.", metavar="FILE")
    ] = None,
    cloudtrail_keys: Annotated[
        Path | None, typer.Option("--cloudtrail-keys", help="AWS's keys: what `aws cloudtrail list-public-keys` printed.", metavar="FILE")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Ask AWS for its keys and its prices, with your own AWS login.")] = False,
    tsa_cert: Annotated[
        list[Path] | None, typer.Option("--tsa-cert", help="Believe timestamps under this root certificate (PEM).", metavar="FILE")
    ] = None,
    sigstore_identity: Annotated[
        str | None, typer.Option("--sigstore-identity", help="Ask for this identity's signature through sigstore.", metavar="ID")
    ] = None,
    sigstore_issuer: Annotated[
        str | None, typer.Option("--sigstore-issuer", help="Who has to have confirmed that identity.", metavar="URL")
    ] = None,
    sigstore_trust_root: Annotated[
        Path | None, typer.Option("--sigstore-trust-root", help="The roots of a sigstore service of your own (JSON).", metavar="FILE")
    ] = None,
    aws_profile: AwsProfile = None,
    as_json: Json = False,
) -> None:
    """Check a proof offline, trusting neither gpulease nor whoever handed it over.

    \b
        gpulease verify r-20261121t140210z-7f3a9k2m.evidence
    """
    from provisioner.commands import verify_proof

    with ending(as_json, usage=3):
        code, record, text = verify_proof(
            path,
            require,
            allowed_signers,
            iid_cert or [],
            cloudtrail_keys,
            online,
            aws_profile,
            tsa_cert or [],
            sigstore_identity,
            sigstore_issuer,
            sigstore_trust_root,
        )
        leave(code, record if as_json else text)
