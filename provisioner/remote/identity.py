"""Ask a machine for the identity document that EC2 signed for it, over the connection whose host key is pinned.

The document comes from the machine's own metadata service (IMDSv2: a token by PUT first), in the form `rsa2048`: base64 of a
signed message. Here it is text that a machine printed, bounded and in one alphabet; what it is worth is for others to check.
No document is no failure of a run: a machine without curl, or with its metadata service off, has none to give.
This file must not know what is done with it.
"""

from __future__ import annotations

import re

from provisioner.errors import HostError
from provisioner.model import Host

LIMIT = 16 << 10

READ = """# Read the identity document that EC2 signed for this machine
command -v curl >/dev/null 2>&1 || { echo "there is no curl here" >&2; exit 3; }
meta=http://169.254.169.254/latest
ask() { curl -sf --noproxy '*' --connect-timeout 2 --max-time 4 "$@"; }
token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$meta/api/token") || { echo "no metadata token was given" >&2; exit 4; }
said=$(ask -H "X-aws-ec2-metadata-token: $token" "$meta/dynamic/instance-identity/rsa2048") || { echo "there is no document" >&2; exit 5; }
printf '%s\\n' "$said" | head -c 16385
"""


def document(host: Host) -> bytes:
    """The document as IMDS gave it. HostError when there is none, or what came is something else."""
    said = host.run(READ, timeout=20.0).stdout
    text = said.strip()
    if not text or len(text) > LIMIT or not re.fullmatch(r"[A-Za-z0-9+/=\s]+", text):
        raise HostError(
            f"{host.name} gave no identity document",
            why=f"what came is {len(text)} characters, and not base64 of at most {LIMIT}",
            next="the run goes on; its proof says that the machine is not identified",
        )
    return text.encode() + b"\n"
