"""The address that the world sees us come from: the only one that port 22 of a rented machine is opened to.

AWS answers that question at a fixed page of its own. The answer is taken only if it is one public IPv4 address.
"""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.request

from provisioner.errors import RefusedError

ASK = "https://checkip.amazonaws.com"


def cidr(url: str = ASK, timeout: float = 10.0) -> str:
    """ "203.0.113.7/32", or RefusedError when it cannot be told."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            text = answer.read(64).decode("ascii", "replace").strip()
        address = ipaddress.IPv4Address(text)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as e:
        raise RefusedError(
            f"cannot tell which address we come from: {e}",
            why=f"asked {url}; port 22 of the machine is opened to that address alone",
            next="name it: --reach-from 203.0.113.7/32",
        ) from e
    if not address.is_global:
        raise RefusedError(f"our address is said to be {address}, which is not public", why=f"asked {url}", next="--reach-from ADDRESS/32")
    return f"{address}/32"
