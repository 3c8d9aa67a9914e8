"""The client's own HTTP and event-stream parser: the same result however the bytes are cut, and a name for every fault."""

from __future__ import annotations

import ast
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.evals import client
from provisioner.evals.local import source
from tests.evals.loopback import SSE, answer, chunked, event, stream

LIMITS = {**client.LIMITS, "bytes": 1 << 16, "head": 2048, "line": 4096, "events": 100, "tokens": 60, "text": 2000, "body": 256}


def parse(parts: list[bytes], fault: str = "", closed: bool = True) -> client.Answer:
    got = client.Answer(LIMITS)
    for at, part in enumerate(parts):
        got.feed(at, part)
    if closed:
        got.close(len(parts), fault)
    return got


def said(got: client.Answer) -> dict[str, Any]:
    """Everything but the stamps, which do depend on the cutting."""
    names = ("over", "error", "status", "finish", "tokens_in", "tokens_out", "text", "chars")
    return {**{name: getattr(got, name) for name in names}, "chunks": [chunk[1] for chunk in got.chunks]}


GOOD = answer("Hel", "lo ", "wörld ", "你好")
ANSWERS = {
    "chunked": stream(GOOD),
    "small chunks": SSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(GOOD, 7),
    "chunk extensions and trailers": SSE
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(GOOD, 50, b';name="v;w"')[:-2]
    + b"X-Trailer: yes\r\n\r\n",
    "content-length": SSE + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
    "until close": SSE + b"\r\n" + GOOD,
    "bare line feeds in the head": stream(GOOD).replace(b"\r\n", b"\n", 4),
    "crlf events": stream(GOOD.replace(b"\n", b"\r\n")),
    "cr events": stream(GOOD.replace(b"\n", b"\r")),
    "comments": stream(b": ping\n\n" + GOOD.replace(b"data: ", b": keep-alive\nid: 7\nevent: message\nretry: 10\ndata:")),
    "several data lines": stream(GOOD.replace(b'"choices"', b'\ndata: "choices"')),
    "several data lines, crlf": stream(GOOD.replace(b'"choices"', b'\ndata: "choices"').replace(b"\n", b"\r\n")),
    "interim answer": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + stream(GOOD),
    "no [DONE]": stream(GOOD.replace(b"data: [DONE]\n\n", b"")),
    "no last blank line": SSE + b"\r\n" + GOOD.rstrip(b"\n"),
    "empty data lines": stream(GOOD.replace(b"\n\n", b"\n\ndata:\n\n")),
    "bytes after the end": stream(GOOD) + b"HTTP/1.1 500 smuggled\r\n\r\n",
}
BAD = {
    "nothing": (b"", "empty: closed without a single byte"),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00", "bad-http: the answer does not start with HTTP/1."),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "bad-http"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Ty", "truncated"),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, "bad-http: a head of more than 2048 bytes"),
    "endless header line": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9000, "bad-http: a head of more than 2048 bytes"),
    "strange status": (b"HTTP/1.1 2000 OK\r\n\r\n", "bad-http: status line"),
    "header without colon": (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "bad-http: header line nonsense"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "bad-http: two lengths"),
    "negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", "bad-http: content-length -3"),
    "strange chunk size": (SSE + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n", "bad-http: chunk size +5"),
    "chunk too long": (SSE + b"Transfer-Encoding: chunked\r\n\r\n3\r\ndata: x\r\n\r\n", "bad-http: a chunk longer than it said"),
    "coding": (SSE + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "bad-http: transfer-encoding gzip, chunked"),
    "compressed": (SSE + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b", "not-sse: compressed as gzip"),
    "upgrade": (b"HTTP/1.1 101 Switching\r\n\r\n", "http-101"),
    "redirect": (b"HTTP/1.1 307 T\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "http-307: no message"),
    "error with message": (
        b'HTTP/1.1 400 B\r\nContent-Length: 46\r\n\r\n{"error":{"message":"no\x1b[2Jsuch model","code":1}}'[:-2] + b"}}",
        "http-400",
    ),
    "detail": (b'HTTP/1.1 422 U\r\n\r\n{"message":"max_tokens is too large"}', "http-422: max_tokens is too large"),
    "endless error": (b"HTTP/1.1 503 S\r\n\r\n" + b"busy " * 100, "http-503: busy busy"),
    "web page": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<!DOCTYPE html><title>Login</title>", "html: a web page: <!DOCTYPE"),
    "json": (b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"choices":[]}', "not-sse: application/json"),
    "no content": (b"HTTP/1.1 204 No\r\n\r\n", "http-204"),
    "empty body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "empty: status 200 and no body"),
    "no events": (stream(b": only a comment\n\n"), "empty: a stream without events"),
    "no words": (stream(answer()), "empty: the answer ended without any content"),
    "bad json": (stream(b"data: {oops\n\n"), "bad-json: event 1 is {oops"),
    "not an object": (stream(b"data: [1]\n\n"), "bad-json: event 1 is not an object"),
    "not utf-8": (stream(b'data: {"a":"\xff"}\n\n'), "bad-json"),
    "utf-16": (stream('data: {"a":1}\n\n'.encode("utf-16-le")), "empty"),
    "deep": (stream(b"data: " + b"[" * 4000 + b"\n\n"), "bad-json"),
    "server error": (stream(event({"content": "a"}) + b'data: {"error":{"message":"out of memory"}}\n\n'), "server-error: out of memory"),
    "cut short": (SSE + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + GOOD[:40], "truncated: closed after"),
    "no finish": (stream(event({"content": "a"})), "truncated: the stream ended without a finish reason"),
    "endless line": (SSE + b"\r\ndata: " + b"x" * 9000, "too-long: a line of more than 4096 bytes"),
    "endless event": (SSE + b"\r\n" + b"data: x\n" * 6000, "too-long: an event of more than 4096 lines"),
    "endless comments": (SSE + b"\r\n" + b": ping\n\n" * 10000, "too-long: more than 65536 bytes"),
    "endless events": (SSE + b"\r\n" + b"data: {}\n\n" * 200, "too-long: more than 100 events"),
    "too many tokens": (stream(b"".join(event({"content": "a"}) for _ in range(90))), "too-long: more than 60 tokens"),
    "too much text": (stream(event({"content": "a" * 3000})), "too-long: more than 2000 characters"),
    "claims too many tokens": (
        stream(event({"content": "a"}, "stop", usage={"completion_tokens": 99}) + b"data: [DONE]\n\n"),
        "too-long: the server counts 99",
    ),
}


def test_the_client_is_python_3_8_and_imports_only_the_standard_library() -> None:
    import sys

    tree = ast.parse(source().decode(), feature_version=(3, 8))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", ANSWERS)
def test_a_good_answer_is_read_whole_and_byte_by_byte(name: str) -> None:
    raw = ANSWERS[name]
    whole, bytewise = parse([raw]), parse([raw[i : i + 1] for i in range(len(raw))])
    assert whole.error is None and "".join(whole.text) == "Hello wörld 你好"
    assert (whole.finish, whole.tokens_in, whole.tokens_out, len(whole.chunks)) == ("stop", 7, 4, 4)
    assert said(whole) == said(bytewise)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_good_answer_is_the_same_cut_in_two_anywhere(name: str) -> None:
    raw = ANSWERS[name]
    expected = said(parse([raw]))
    for i in range(1, len(raw)):
        assert said(parse([raw[:i], raw[i:]])) == expected


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_has_a_named_error_however_it_is_cut(name: str) -> None:
    raw, expected = BAD[name]
    whole = parse([raw])
    assert whole.over and whole.error is not None and whole.error.startswith(expected), whole.error
    assert whole.error.isprintable() and len(whole.error) < 300
    step = max(1, len(raw) // 300)
    assert said(parse([raw[i : i + step] for i in range(0, len(raw), step)])) == said(whole)


@given(st.sampled_from([*ANSWERS.values(), *(raw for raw, _ in BAD.values())]), st.lists(st.integers(0, 70000), max_size=12))
def test_the_cuts_never_matter(raw: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    parts = [raw[a:b] for a, b in pairwise(edges)]
    assert said(parse([part for part in parts if part])) == said(parse([raw] if raw else []))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "usage", "finish_reason", "error", "completion_tokens"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_of_whatever_shape_is_more_than_an_error(document: Any) -> None:
    got = parse(
        [SSE + b"\r\ndata: " + json.dumps({"choices": [document], "usage": document} if isinstance(document, list) else document).encode()]
    )
    assert got.over and got.error


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", SSE, SSE + b"\r\n", SSE + b"Transfer-Encoding: chunked\r\n\r\n"]),
)
@settings(max_examples=300)
def test_no_bytes_are_more_than_an_error(tail: bytes, start: bytes) -> None:
    got = parse([start + tail])
    assert got.over and got.error


def test_a_stamp_is_of_the_arrival_of_the_bytes_that_completed_the_event() -> None:
    got = client.Answer(LIMITS)
    got.feed(10, SSE + b"\r\n" + event({"role": "assistant", "content": ""}))
    got.feed(20, event({"content": "ab"})[:-1])
    got.feed(30, b"\n" + event({"content": "c"}))
    assert got.chunks == [[30, 2], [30, 1]]


def test_reasoning_is_timed_and_not_scored() -> None:
    got = parse([stream(event({"reasoning_content": "hmm"}) + event({"content": "4"}, "stop") + b"data: [DONE]\n\n")])
    assert [chars for _, chars in got.chunks] == [3, 1] and got.text == ["4"] and got.error is None


def test_a_number_of_a_million_digits_is_no_token_count() -> None:
    assert client.decode('{"n": %s}' % ("9" * 100_000)) == {"n": -1}
    assert client.count(-1) is None and client.count(True) is None and client.count(5) == 5


def test_no_lone_surrogate_leaves_the_client() -> None:
    assert client.whole_text(["\ud83d", "\ude00", "a", "\ud83d"]) == "😀a\ufffd"
    assert client.words("a\x1b[31m\n\u202eb\x00" + "c" * 500, 20).isprintable()
