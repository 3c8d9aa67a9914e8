"""What goes wrong on this machine: a full disk before the first line, a pretended cloud that breaks, an address that cannot be told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from provisioner import caller, clouds
from provisioner.errors import RefusedError
from provisioner.rehearsal import client
from tests.cli.conftest import NOBODY
from tests.life.conftest import Bench


@pytest.mark.slow
@pytest.mark.parametrize("fits", [0, 700])
def test_a_disk_that_does_not_take_the_first_line_rents_nothing_and_leaves_no_orphan(fits: int, bench: Bench) -> None:
    """0: not even the card fits; 700: the card does, the journal's first line does not."""
    ended = bench.run(file_limit=fits)
    assert ended.code == 4, ended
    assert "could not be written" in str(ended.answer) or "too large" in str(ended.answer)
    assert "nothing was rented" in ended.answer["now"]
    assert not bench.folders() and not [thing for thing in bench.cloud.truth() if thing.get("lease")]
    assert bench.end(bench.start("ls", "--json")).answer["leases"] == []


def test_a_pretended_cloud_that_breaks_does_not_take_the_place_of_how_the_run_ended() -> None:
    clouds._end_if_empty(client.attach(NOBODY))


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"


def page(text: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def test_the_address_that_the_world_sees_is_taken_if_it_is_one() -> None:
    with answering(page("8.8.4.4\n")) as url:
        assert caller.cidr(url) == "8.8.4.4/32"


SAID = [page("10.0.0.7"), page("0.0.0.0"), page("8.8.8.8/0"), page("2001:4860::1"), page("<html>"), page(""), page("9" * 100_000)]
SAID += [b"nonsense\r\n\r\n", b"", b"HTTP/1.0 500 no\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n8.8.8.8"[:-7]]


@pytest.mark.parametrize("reply", SAID, ids=range(len(SAID)))
def test_any_other_answer_opens_no_port_and_says_how_to_name_it(reply: bytes) -> None:
    with answering(reply) as url, pytest.raises(RefusedError) as refused:
        caller.cidr(url)
    assert "--reach-from" in refused.value.next
