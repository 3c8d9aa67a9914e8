"""A denied call, in AWS's words for it: EC2 puts a blob behind them that only `sts:DecodeAuthorizationMessage` reads.

The blob matters because people paste it: a tool must neither cut it off nor take it for the reason. AWS encrypts it; here it
is compressed JSON in base64, about as long, and `decode` gives back what AWS would. Who is denied what is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any

from provisioner.rehearsal.wire import Call, Refusal

_LONGEST = 64 << 10


def denied(call: Call, who: str, action: str = "", resource: str = "*", why: str = "no identity-based policy allows it") -> Refusal:
    """The refusal of `call`: `action` ("ec2:RunInstances"; the call's own when left out) on `resource`, to the principal `who`."""
    action = action or f"{call.service}:{call.action}"
    words = f"User: {who} is not authorized to perform: {action} on resource: {resource} because {why}"
    if call.service != "ec2":
        return Refusal(
            "AccessDenied" if call.protocol == "query" else "AccessDeniedException", words, 403 if call.protocol == "query" else 400
        )
    words = f"You are not authorized to perform this operation. {words}. Encoded authorization failure message: "
    return Refusal("UnauthorizedOperation", words + encode(who, action, resource), 403)


def encode(who: str, action: str, resource: str) -> str:
    document = {
        "allowed": False,
        "explicitDeny": False,
        "matchedStatements": {"items": []},
        "failures": {"items": []},
        "context": {"principal": {"arn": who}, "action": action, "resource": resource, "conditions": {"items": []}},
    }
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(document).encode())).decode()


def decode(blob: str) -> dict[str, Any]:
    """What `encode` put in. Refusal for anything else."""
    try:
        raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(blob.encode()), _LONGEST)
        document = json.loads(raw)
    except (binascii.Error, UnicodeEncodeError, ValueError, zlib.error):
        document = None
    if not isinstance(document, dict):
        raise Refusal("InvalidAuthorizationMessageException", "The message could not be decoded.")
    return document
