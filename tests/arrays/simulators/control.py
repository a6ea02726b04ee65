"""The test's own door into a simulator: faults, settings, counts and changes behind the client's back.

Plain HTTP on another port, open only to who knows the secret. `Simulator` is the test's side of it: it starts a
simulator as a process of its own and speaks to this door.
"""

import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Control(BaseHTTPRequestHandler):
    """`POST /VERB` with a JSON object of arguments; the reply is JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        verb = self.server.verbs.get(self.path.lstrip("/"))
        if not secrets.compare_digest(self.headers.get("X-Control-Secret", ""), self.server.secret):
            status, answer = 403, {"error": "wrong secret"}
        elif verb is None:
            status, answer = 404, {"error": f"no such verb; there are: {sorted(self.server.verbs)}"}
        else:
            try:
                status, answer = 200, verb(**json.loads(body or b"{}"))
            except Exception as error:  # noqa: BLE001 - the test must see what it did wrong
                status, answer = 400, {"error": repr(error)}
        content = json.dumps(answer).encode()
        self.wfile.write(
            f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )

    def log_message(self, *_):
        pass


def control_server(array, server, trap, secret, port=0):
    """The control server of an array: verbs common to all, and what the array's `verbs()` adds."""

    def calls(reset=False):
        answer = {**array.calls.summary(), "fault_hits": array.faults.hits(), "trapped": len(trap.array.calls.log)}
        if reset:
            array.calls.reset()
        return answer

    def settings(**changes):
        unknown = set(changes) - set(array.settings)
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}; there are {sorted(array.settings)}")
        array.settings.update(changes)
        return array.settings

    door = ThreadingHTTPServer(("127.0.0.1", port), Control)
    door.daemon_threads = True
    door.secret = secret
    door.verbs = {
        "fault": lambda **arguments: array.faults.add(**arguments),
        "clear": lambda: array.faults.clear(),
        "calls": calls,
        "settings": settings,
        "certificate": lambda kind: server.show(kind),
        "disconnect": lambda: server.disconnect(),
        **array.verbs(),
    }
    return door


class Simulator:
    """A simulator as a process: starts on entering the `with` block, ends on leaving it."""

    def __init__(self, module, *arguments):
        self.command = [sys.executable, "-m", f"arrays.simulators.{module}", *map(str, arguments), "--until-eof"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the simulator did not start: {self.command}")
        self.facts = json.loads(line)
        self.url = self.facts["url"]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def do(self, verb, **arguments):
        """Asks the control door; raises RuntimeError with its complaint."""
        headers = {"X-Control-Secret": self.facts["control_secret"], "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.facts['control']}/{verb}", json.dumps(arguments).encode(), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{verb}: {error.read().decode()}") from None

    def fault(self, kind, match="", **details):
        self.do("fault", kind=kind, match=match, **details)

    def clear(self):
        return self.do("clear")

    def calls(self, reset=False):
        return self.do("calls", reset=reset)
