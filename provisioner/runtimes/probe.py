"""Is the server alive, and does it answer? Run once on the machine (`python3 - FOLDER PORT MODEL SECONDS`), it prints one JSON line.

Standard library only, Python 3.8 or newer, no file of ours needed on the machine. It asks in the order in which a
server comes up: is the process there, /health, /v1/models, one real completion. Every answer is read to a limit of
bytes and of time, never to its end, and nothing in it is believed beyond what is looked for. The key is read from a file and is never
printed. Proxies in the environment are not used: the address is the loopback.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from typing import Any

LIMIT = 65536


def main(folder: str, port: str, model: str, seconds: str) -> None:
    os.chdir(os.path.expanduser(folder))
    out = alive()
    if out["alive"]:
        try:
            out.update(ask(int(port), model, float(seconds)))
        except (OSError, http.client.HTTPException) as error:
            out.update(state="starting", why=type(error).__name__)
    else:
        out["state"] = "dead"
    out["line"] = last_line()
    print(json.dumps(out))


def alive() -> dict[str, Any]:
    pid = read("server.pid").strip()
    code = read("server.exit").strip()
    if code or not pid.isdigit():
        return {"alive": False, "exit": int(code) if code.isdigit() else None}
    try:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(") ")[2][:1]
    except OSError:
        state = "gone"
    return {"alive": state not in ("gone", "Z", "X"), "exit": None}


def ask(port: int, model: str, seconds: float) -> dict[str, Any]:
    status, _ = request(port, "GET", "/health", None, 5)
    if status != 200:
        return {"state": "starting", "why": f"/health answered {status}"}
    key = read("api.key").strip()
    status, body = request(port, "GET", "/v1/models", key, 10)
    if status in (401, 403):
        return {"state": "refused", "why": f"/v1/models answered {status} to our key"}
    if status != 200:
        return {"state": "starting", "why": f"/v1/models answered {status}"}
    named = names(body)
    if model not in named:
        return {"state": "wrong-model", "names": [name[:120] for name in named[:5]]}
    document = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}
    begun = time.monotonic()
    try:
        status, body = request(port, "POST", "/v1/chat/completions", key, seconds, json.dumps(document).encode())
    except TimeoutError:
        return {"state": "no-answer", "why": f"a completion did not end within {seconds:g} s"}
    took = int((time.monotonic() - begun) * 1000)
    if status != 200:
        return {"state": "no-answer" if status < 500 else "starting", "why": f"a completion ended with {status}", "body": body[:400]}
    if not completed(body):
        return {"state": "no-answer", "why": "the completion is not one", "body": body[:400]}
    bare, _ = request(port, "GET", "/v1/models", None, 10)
    return {"state": "ready", "first_ms": took, "key_required": bare in (401, 403)}


def request(port: int, method: str, path: str, key: str | None, timeout: float, body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    # A socket's own time-out begins again with every byte that comes.
    signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        if key:
            headers["Authorization"] = "Bearer " + key
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(LIMIT).decode("utf-8", "replace")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.close()


def too_late(number: int, frame: Any) -> None:
    raise TimeoutError


def names(body: str) -> list[str]:
    document = parsed(body)
    rows = document.get("data") if isinstance(document, dict) else None
    return [str(row.get("id")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def completed(body: str) -> bool:
    document = parsed(body)
    choices = document.get("choices") if isinstance(document, dict) else None
    return isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict) and isinstance(choices[0].get("message"), dict)


def parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def last_line() -> str:
    try:
        with open("server.log", "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = [line for line in file.read(4096).decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1][:400] if lines else ""


def read(name: str) -> str:
    try:
        with open(name) as file:
            return file.read(4096)
    except OSError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:5])
