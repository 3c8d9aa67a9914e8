"""A host process for these tests: keeps the seam of `provisioner.rehearsal.host` and does nothing else.

User data is JSON: {"exit": N, "after": seconds} ends by itself; {"child": true} starts a process in a session of its
own; {"slow": seconds} answers late; {"stubborn": true} ignores SIGTERM; {"polite": true} exits 0 on it; {"say": [...]}
prints each as a line. Every line on stdin is kept in ROOT/heard. Dozens are started, so it imports little.
"""

import json
import os
import signal
import sys
import time
from binascii import a2b_base64

root = sys.argv[sys.argv.index("--root") + 1]


def keep(name: str, text: str) -> None:
    with open(f"{root}/{name}", "a") as file:
        file.write(text)


first = sys.stdin.readline()
keep("heard", first)
asked = json.loads(a2b_base64(json.loads(first)["user_data_b64"]) or b"{}")
signal.signal(signal.SIGTERM, signal.SIG_IGN if asked.get("stubborn") else lambda *_: os._exit(0 if asked.get("polite") else 143))
if asked.get("child"):
    import subprocess

    keep("child", str(subprocess.Popen(["sleep", "600"], env={"GPULEASE_ROOT": root}, start_new_session=True).pid))
time.sleep(asked.get("slow", 0))
print(json.dumps({"port": 1 + os.getpid() % 60000, "pid": os.getpid()}), flush=True)
for line in asked.get("say", []):
    print(json.dumps(line), flush=True)
if "exit" in asked:
    time.sleep(asked.get("after", 0))
    os._exit(asked["exit"])
for line in sys.stdin:
    keep("heard", line)
os._exit(129)
