"""A stand-in for `vllm` and `sglang`: the same command lines, the same paths, no model.

What it does wrong is said in the variable FAKE, which a profile's runtime.env may set like any other: "die", "never",
"stubborn", "wrong-model", "chat-400", "no-chat", "endless", "open" (needs no key). It prints its key, as SGLang does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def main():
    assert sys.argv[1] == "serve", sys.argv
    flags = dict(word.split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
    name = sys.argv[sys.argv.index("--served-model-name") + 1]
    key = os.environ.get("VLLM_API_KEY")
    if "--config" in sys.argv:
        with open(sys.argv[sys.argv.index("--config") + 1]) as file:
            key = file.read().split('"')[1]
    fake = os.environ.get("FAKE", "")
    print("non-default args:", sys.argv, "api_key=" + repr(key), "token=" + repr(os.environ.get("HF_TOKEN")), flush=True)
    print("environment:", sorted(name for name in os.environ), flush=True)
    if fake == "die":
        print(os.environ["LAST_WORDS"], file=sys.stderr)
        sys.exit(1)
    if fake == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
    print("Model loading took 1.12 GiB memory and 0.51 seconds", flush=True)
    print("(EngineCore_DP0 pid=7) Available KV cache memory: 3.10 GiB", flush=True)
    print("(EngineCore_DP0 pid=7) GPU KV cache size: 22,800 tokens, Maximum concurrency for 8,192 tokens per request: 2.78x", flush=True)
    if fake == "never":
        time.sleep(600)

    class Answers(BaseHTTPRequestHandler):
        def answer(self, status, document):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def allowed(self):
            if fake == "open" or self.headers.get("Authorization") == f"Bearer {key}":
                return True
            self.answer(401, {"error": "Unauthorized"})
            return False

        def do_GET(self):
            if self.path == "/health":
                self.answer(200, {})
            elif self.path == "/v1/models" and self.allowed():
                self.answer(200, {"data": [{"id": "something/else" if fake == "wrong-model" else name}]})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if not self.allowed():
                return
            if fake == "chat-400":
                self.answer(400, {"error": "this model has no chat template; your key was " + self.headers["Authorization"]})
            elif fake == "endless":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.02)
            elif fake == "no-chat":
                self.answer(200, ["\x1b[2Jwhat"])
            else:
                self.answer(200, {"choices": [{"message": {"role": "assistant", "content": "Hello."}}]})

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer((flags["--host"], int(flags["--port"])), Answers)
    print("Application startup complete.", flush=True)
    server.serve_forever()


main()
