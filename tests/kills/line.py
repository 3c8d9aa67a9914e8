"""A line to an endpoint that is cut when its parent says so: `python -m tests.kills.line ENDPOINT SEED PARENT`.

For each line on stdin: what is under way is reset, and for a moment nothing new gets through. Ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from urllib.parse import urlsplit

DOWN_S = (0.2, 1.5)


class Line:
    def __init__(self, endpoint: str) -> None:
        to = urlsplit(endpoint)
        self.host, self.port, self.up = to.hostname or "", to.port or 0, True
        self.open: set[asyncio.StreamWriter] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            there, out = await asyncio.open_connection(self.host, self.port)
            self.open |= {writer, out}
            await asyncio.gather(self.pour(reader, out), self.pour(there, writer))
            self.open -= {writer, out}

    async def pour(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    def cut(self) -> None:
        self.up = False
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()


async def main() -> None:
    endpoint, seed, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    line, chance, said = Line(endpoint), random.Random(seed), asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    while os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(said.readline(), 1.0)
            line.cut()
            await asyncio.sleep(chance.uniform(*DOWN_S))
            line.up = True


if __name__ == "__main__":
    asyncio.run(main())
