"""A host key of the machine's own, in place of the one it was born with.

The key that came in the user-data makes the first contact safe and is a secret no longer than that: user-data can be
read by whoever may describe the instance, and by every process on the machine. So over the connection that it pinned,
the machine makes itself another one, which never leaves it; only the public half comes back, over the same
connection, and every connection from then on accepts nothing else. The old private half is overwritten on the
machine; what user-data still shows opens and proves nothing.

cloud-init puts a host key in place once per instance (the module `ssh` is not run again after a reboot), so the new one
stays. Should an old one come back all the same, nobody here accepts it: the run loses its machine and lets it go.

A rotation that fails ends the run: from then on a machine in between could pass for ours. Must not know any cloud.
"""

from __future__ import annotations

import time
from pathlib import Path

from provisioner.clean import clean
from provisioner.errors import HostError, RefusedError
from provisioner.remote import keys
from provisioner.remote.link import Sleep
from provisioner.remote.ssh import SshHost

SHOWN_WITHIN_S = 20.0
PAUSE_S = 0.25

_AS_ROOT = """set -eu
umask 077
key=$1/etc/ssh/ssh_host_ed25519_key
rm -f "$key.new" "$key.new.pub"
ssh-keygen -q -t ed25519 -N '' -C '' -f "$key.new" < /dev/null
chmod 644 "$key.new.pub"
mv -f "$key.new.pub" "$key.pub"
mv -f "$key.new" "$key"
# A certificate would speak for the old key.
rm -f "$key-cert.pub"
systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service
cat "$key.pub"
"""
# The root is said in words: sudo drops the environment, and a rehearsal's machine is a folder.
ROTATE = """root=${GPULEASE_ROOT:-}
if [ "$(id -u)" = 0 ]; then exec sh -c "$script" rotate "$root"; fi
exec sudo -n sh -c "$script" rotate "$root"
"""


def rotate(host: SshHost, pinned: str, *, sleep: Sleep = time.sleep, within: float = SHOWN_WITHIN_S) -> str:
    """Have the machine make a new host key, go on with a connection that accepts only that, and return its public line."""
    said = host.run(ROTATE, values={"script": _AS_ROOT}, timeout=60.0).stdout
    fresh = _public(host, said, pinned)
    until = time.monotonic() + within
    while True:
        try:
            # A signal to sshd is not an answer: for a moment the old key may be shown still, or the port be shut.
            host.reconnect(fresh)
            return fresh
        except HostError as e:
            if time.monotonic() >= until:
                raise HostError(
                    f"{host.name} does not show the host key that it made: {keys.fingerprint(fresh)}",
                    why=f"after {within:g} s: {e.what}: {e.why}",
                    next="the same command again, or another image (launch.image)",
                ) from e
            sleep(PAUSE_S)


def retire(folder: Path, fresh: str) -> None:
    """In the lease's folder: the new public half in place of the old, and the injected private half gone."""
    keys.replace_public(folder, "host_ed25519", fresh)
    (folder / "host_ed25519").unlink(missing_ok=True)


def _public(host: SshHost, said: str, pinned: str) -> str:
    line = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    try:
        fresh = keys.public_line(line)
    except RefusedError as e:
        raise _not_made(host, f"it printed {clean(line, limit=80)!r}, which is no public key") from e
    if keys.key_type(fresh) != "ssh-ed25519":
        raise _not_made(host, f"it printed a key of type {keys.key_type(fresh)}")
    if fresh == keys.public_line(pinned):
        raise _not_made(host, "it still has the key that came in its user-data")
    return fresh


def _not_made(host: SshHost, why: str) -> HostError:
    return HostError(
        f"{host.name} did not make a host key of its own",
        why=why,
        next="another image (launch.image): it needs ssh-keygen, and sudo without a password",
    )
