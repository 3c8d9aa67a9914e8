"""The rehearsal's process: `python -P -m provisioner.rehearsal.serve --state DIR`.

It listens first, prints one JSON line (`{"endpoint": "http://127.0.0.1:PORT", "pid": N}`), and loads moto while the
caller is still importing boto3; requests wait for that. It then lives on its own: it ignores the hang-up of the
terminal that started it, and ends on SIGTERM, SIGINT, `POST /_rehearsal/stop`, after `--idle-exit` seconds in which it had no
machine and got no request, or after `--max-life` seconds whatever happens, so that nothing is left behind for ever.
However it ends, its machines end: by its hand, or by their stdin closing.

Printed to stdout: that line and nothing else. The story goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from provisioner import extras
from provisioner.rehearsal import SIMULATED
from provisioner.rehearsal.endpoint import Endpoint
from provisioner.rehearsal.faults import Plan

_NEEDED = ("moto", "boto3", "werkzeug")


def main(argv: Sequence[str] | None = None) -> int:
    options = _options().parse_args(argv)
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        print(f"the rehearsal needs {', '.join(missing)}: {extras.install('rehearsal')}", file=sys.stderr)
        return 4
    plan = Plan()
    try:
        if options.faults:
            text = options.faults if options.faults.lstrip()[:1] in "[{" else Path(options.faults).read_text()
            plan.add(json.loads(text))
    except (ValueError, TypeError, OSError) as e:
        print(f"--faults: {e}", file=sys.stderr)
        return 2
    state = Path(options.state)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = shlex.split(options.host_command) or [sys.executable, "-P", "-m", "provisioner.rehearsal.host"]
    endpoint = Endpoint(state.resolve(), plan, command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: endpoint.stop.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return _serve(endpoint, state, options)


def _serve(endpoint: Endpoint, state: Path, options: argparse.Namespace) -> int:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:
            pass  # GET /_rehearsal/log has more than a line per request

        def connection_dropped(self, error: BaseException, environ: object = None) -> None:
            # No answer was sent that said "close", so the handler would wait for another request and hold the socket open.
            self.close_connection = True

        def version_string(self) -> str:
            return SIMULATED

    with contextlib.redirect_stderr(io.StringIO()):  # where a port is taken the library says so at length and ends; we say it ourselves
        server = make_server("127.0.0.1", options.port, endpoint, threaded=True, request_handler=Quiet)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="server", daemon=True).start()
    ready = json.dumps({"endpoint": f"http://127.0.0.1:{server.server_port}", "pid": os.getpid()})
    _write_whole(state / "endpoint.json", ready + "\n")
    print(ready, flush=True)
    # Whoever read that line may be gone; a later print must not end us with SIGPIPE or fill a pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = _live(endpoint, options)
    server.server_close()
    (state / "endpoint.json").unlink(missing_ok=True)
    return status


def _live(endpoint: Endpoint, options: argparse.Namespace) -> int:
    born = time.monotonic()
    try:
        endpoint.load()
        while not endpoint.stop.is_set() and time.monotonic() - born < options.max_life:
            if (quiet := endpoint.quiet_for()) > options.idle_exit:
                break
            # Nothing can come due before that: a machine or a request sets it back.
            endpoint.stop.wait(min(options.idle_exit - quiet + 0.02, options.max_life, 30.0))
        return 0
    except Exception:  # the end of the program: say it where the log is, and let every machine go
        traceback.print_exc(file=sys.stderr)
        return 1
    finally:
        endpoint.close()


def _write_whole(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="provisioner.rehearsal.serve", description="An EC2-compatible endpoint whose machines are simulated."
    )
    options.add_argument("--state", required=True, help="its folder; made, 0700, when it is not there")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--idle-exit", type=float, default=60.0, help="seconds without machine and request after which it ends")
    options.add_argument("--max-life", type=float, default=86_400.0, help="seconds after which it ends whatever happens")
    options.add_argument("--faults", default="", help="a JSON list, or a file with one; see faults.py")
    options.add_argument("--host-command", default=os.environ.get("GPULEASE_REHEARSAL_HOST", ""), help="what to start for each machine")
    return options


if __name__ == "__main__":
    sys.exit(main())
