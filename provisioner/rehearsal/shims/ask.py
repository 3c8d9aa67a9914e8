"""A command of a simulated machine whose answer the machine's own process knows: ask it over its socket.

Run as `python3 -I -S ask.py SOCKET NAME ARG…` by the small scripts in ROOT/bin. It imports as little as it can,
because a guard that calls `systemctl` must not take longer here than on a real machine.
"""

import os
import socket
import sys


def main() -> int:
    path, *words = sys.argv[1:]
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(path)
        link.sendall(b"\0".join(os.fsencode(w) for w in (*words[:1], os.getcwd(), *words[1:])))
        link.shutdown(socket.SHUT_WR)
        answer = b""
        while data := link.recv(65536):
            answer += data
    except OSError:
        answer = b""
    head, newline, rest = answer.partition(b"\n")
    if not newline:
        os.write(2, b"SIMULATED: the machine is going down\n")
        return 1
    code, length = (int(x) for x in head.split())
    for fd, data in ((1, rest[:length]), (2, rest[length:])):
        while data:
            data = data[os.write(fd, data) :]
    return code


if __name__ == "__main__":
    sys.exit(main())
