"""The OpenAI API of the simulated server: requests in, tokens out when they are due.

Shapes are vLLM's (chunks, usage, errors), because a client that works against these must work against those. The
faults that make a server hostile are here too: an endless stream, HTML with status 200, broken JSON, silence.
Stdlib only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .model_answers import answer, text_of
from .model_http import Reply

if TYPE_CHECKING:
    from .model_server import Server

TOKEN = re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]|\s*[A-Za-z]{1,8}|\s*\d{1,3}|\s*[^\sA-Za-z\d\u4e00-\u9fff]|\s+")
TEMPLATE_TOKENS = 4  # what a chat template adds to each message
HTML = "<!DOCTYPE html><html><head><title>502</title></head><body><h1>502 Bad Gateway</h1><script>alert(1)</script></body></html>"


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


class ModelApi:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._queue: deque[Generation] = deque()

    def handle(self, reply: Reply, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        server = self._server
        s = server.settings
        sglang = s.engine == "sglang"
        if not server.allowed(path, headers.get("authorization", "")):
            return reply.json(401, {"error": "Unauthorized"})
        if not server.ready:
            if path in ("/health", "/health_generate"):
                return reply.whole(503, b"")
            return reply.error(503, "The engine is starting", "ServiceUnavailable")
        if path in ("/v1/chat/completions", "/v1/completions"):
            if method != "POST":
                return reply.json(405, {"detail": "Method Not Allowed"})
            return self._generate(reply, path.endswith("chat/completions"), body)
        if path in ("/health", "/ping") or (sglang and path in ("/health_generate", "/flush_cache")):
            return reply.whole(200, b"")
        if path == "/version" and not sglang:
            return reply.json(200, {"version": f"{s.version} (SIMULATED by gpulease)"})
        if path == "/metrics" and s.metrics_on:
            return reply.whole(200, server.metrics.text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/v1/models":
            assert server.size is not None
            card = {
                "object": "model",
                "created": int(time.time()),
                "owned_by": s.engine,
                "root": s.model,
                "parent": None,
                "max_model_len": server.size.max_len,
            }
            return reply.json(200, {"object": "list", "data": [{"id": name, **card, "simulated": True} for name in s.names]})
        if sglang and path in ("/model_info", "/get_model_info"):
            return reply.json(200, {"model_path": s.model, "is_generation": True, "simulated": True})
        if sglang and path in ("/server_info", "/get_server_info"):
            return reply.json(200, {"version": s.version, "max_total_num_tokens": server.metrics.kv_tokens, "simulated": True})
        return reply.json(404, {"detail": "Not Found"})

    def _generate(self, reply: Reply, chat: bool, body: bytes) -> None:
        server = self._server
        assert server.size is not None
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError("Input should be a valid dictionary")
        except (ValueError, RecursionError) as e:
            return reply.error(400, f"[{{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error: {str(e)[:80]}'}}]")
        model = asked.get("model")
        if model is not None and model not in server.settings.names:
            return reply.error(404, f"The model `{str(model)[:100]}` does not exist.", "NotFoundError", "model")
        messages, prompt = asked.get("messages"), asked.get("prompt")
        if chat:
            if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
                return reply.error(400, "[{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}]")
        else:
            prompt = prompt[0] if isinstance(prompt, list) and prompt else prompt
            if not isinstance(prompt, str):
                return reply.error(400, "Either prompt or prompt_embeds must be provided and non-empty.")
            messages = [{"role": "user", "content": prompt}]
        limit, used = server.size.max_len, sum(len(tokens(text_of(m))) + (TEMPLATE_TOKENS if chat else 0) for m in messages)
        wanted = asked.get("max_completion_tokens", asked.get("max_tokens"))
        if wanted is None and not chat:
            wanted = 16
        if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1):
            return reply.error(400, f"max_tokens must be at least 1, got {wanted}.", param="max_tokens")
        if used + (wanted or 1) > limit:
            least = "at least " if used > limit else ""
            return reply.error(
                400,
                f"This model's maximum context length is {limit} tokens. However, you requested {wanted or 0} output tokens and your "
                f"prompt contains {least}{used} input tokens, for a total of {least}{used + (wanted or 0)} tokens. Please reduce the "
                "length of the input prompt or the number of requested output tokens.",
                param="input_tokens",
            )
        Generation(self, server, reply, asked, messages, chat, used, wanted or limit - used).queue(self._queue)

    def forget(self, generation: Generation) -> None:
        if generation in self._queue:
            self._queue.remove(generation)
        self.finished()

    def finished(self) -> None:
        while self._queue and self._server.metrics.running < self._server.settings.max_running:
            self._queue.popleft().start()
        self._server.metrics.waiting = len(self._queue)


def garbage(stream: bool) -> tuple[bytes, str]:
    """Bytes that are neither JSON nor UTF-8, with a status that promises both."""
    noise = os.urandom(200)
    if not stream:
        return noise, "application/json"
    return b'data: {"choices": [{"delta": {"content": "\xff\xfe' + noise.hex().encode() + b"\n\ndata: nonsense\n\n", "text/event-stream"


class Generation:
    """One request: waits for its turn, then sends each token when it is due."""

    def __init__(
        self, api: ModelApi, server: Server, reply: Reply, asked: dict[str, Any], messages: list[Any], chat: bool, used: int, limit: int
    ) -> None:
        self._api, self._server, self._reply, self._chat, self._prompt, self._limit = api, server, reply, chat, used, limit
        self._stream = bool(asked.get("stream"))
        options = asked.get("stream_options")
        self._usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self._fault = str(server.settings.faults().get("answers") or "")
        self._pieces = tokens("" if self._fault == "empty" else answer(messages))
        self._id = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(16)
        self._model = str(asked.get("model") or server.settings.names[0])
        self._created = int(time.time())
        self._loop = asyncio.get_running_loop()
        self._asked_at = self._started_at = self._loop.time()
        self._stamps: list[float] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        slow = self._fault == "slow"
        s = server.settings
        self._first_s = 1.5 if slow else s.speed("first_token_ms", "GPULEASE_SIM_FIRST_TOKEN_MS", 8.0) / 1000
        self._token_s = 0.05 if slow else s.speed("token_ms", "GPULEASE_SIM_TOKEN_MS", 1.0) / 1000

    def queue(self, queue: deque[Generation]) -> None:
        self._reply.connection.gone = self._abort
        if self._fault == "html":
            return self._answer(200, HTML.encode(), "text/html")
        if self._fault == "garbage":
            return self._answer(200, *garbage(self._stream))
        queue.append(self)
        self._api.finished()

    def start(self) -> None:
        metrics = self._server.metrics
        metrics.running += 1
        metrics.held_tokens += self._prompt
        self._running, self._started_at = True, self._loop.time()
        self._total = min(len(self._pieces), self._limit)
        if self._fault == "endless":
            self._total = 1 << 60
        self._timer = self._loop.call_at(self._started_at + self._first_s, self._first)

    def _first(self) -> None:
        if self._stream:
            self._reply.begin()
            if self._chat:
                self._reply.events(self._chunk({"role": "assistant", "content": ""}, None))
        self._tick()

    def _tick(self) -> None:
        now = self._loop.time()
        start = self._started_at + self._first_s
        due = min(self._total, int((now - start) / self._token_s + 1e-6) + 1) if self._token_s > 0 else self._total
        sent = len(self._stamps)
        self._stamps += [now] * (due - sent)
        if self._stream and due > sent:
            self._reply.events(
                *(self._chunk({"content": self._piece(n)} if self._chat else {"text": self._piece(n)}, None) for n in range(sent, due))
            )
        if due >= self._total:
            return self._end()
        self._timer = self._loop.call_at(start + due * self._token_s, self._tick)

    def _piece(self, number: int) -> str:
        return self._pieces[number] if self._fault != "endless" else " la"

    def _end(self) -> None:
        reason = "length" if len(self._pieces) > self._limit else "stop"
        usage = {
            "prompt_tokens": self._prompt,
            "total_tokens": self._prompt + len(self._stamps),
            "completion_tokens": len(self._stamps),
            "prompt_tokens_details": None,
        }
        self._leave(reason)
        reply = self._reply
        if self._stream:
            reply.events(self._chunk({} if self._chat else {"text": ""}, reason))
            if self._usage:
                reply.events(
                    json.dumps(self._head("chat.completion.chunk" if self._chat else "text_completion") | {"choices": [], "usage": usage})
                )
            reply.events("[DONE]")
            reply.end()
        else:
            text = "".join(self._pieces[: self._total])
            choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason, "stop_reason": None}
            if self._chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
            else:
                choice["text"] = text
            reply.json(200, {**self._head("chat.completion" if self._chat else "text_completion"), "choices": [choice], "usage": usage})
        self._loop.call_soon(self._server.count_answer)

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self._reply.whole(status, body, kind)
        self._loop.call_soon(self._server.count_answer)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "system_fingerprint": "SIMULATED"}

    def _chunk(self, delta: dict[str, str], reason: str | None) -> str:
        choice: dict[str, Any] = {"index": 0, **({"delta": delta} if self._chat else delta), "logprobs": None, "finish_reason": reason}
        if reason is not None:
            choice["stop_reason"] = None
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return json.dumps({**self._head(kind), "choices": [choice]}, ensure_ascii=False, separators=(",", ":"))

    def _abort(self) -> None:
        """The client left."""
        if self._timer is not None:
            self._timer.cancel()
        if self._running:
            self._leave("abort")
        else:
            self._api.forget(self)

    def _leave(self, reason: str) -> None:
        metrics = self._server.metrics
        self._running = False
        metrics.running -= 1
        metrics.held_tokens -= self._prompt
        first = self._stamps[0] - self._asked_at if self._stamps else 0.0
        queued = self._started_at - self._asked_at
        metrics.done(queued=queued, first=first, stamps=self._stamps, start=self._asked_at, prompt=self._prompt, reason=reason)
        self._reply.connection.gone = None
        self._api.finished()
