"""A running storage agent, seen the way an operator sees it.

The agent is started from the smallest file an existing site may have, on free ports and a throw-away volume, as a user
without privileges. Separate from the API client (`folder.py`) because some tests need only the process.
"""

import base64
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

UNPRIVILEGED = 1100
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

CONFIG = """\
[etcd]
namespace = "local"
addr = {{ host = "127.0.0.1", port = 2379 }}
[storage-proxy]
node-id = "i-storage-proxy-01"
secret = "{token_secret}"
session-expire = "1d"
{extra}
[api.client]
service-addr = {{ host = "127.0.0.1", port = {client_port} }}
{client_tls}
[api.manager]
service-addr = {{ host = "127.0.0.1", port = {manager_port} }}
ssl-enabled = false
secret = "{manager_secret}"
[debug]
enabled = false
[logging]
level = "{level}"
drivers = ["console"]
{volumes}
{tables}
"""

PLAIN_VOLUME = """\
[volume.local]
backend = "vfs"
path = "{volume}"
"""


class ApiError(Exception):
    """A reply of the manager API with an error status."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:500]!r}")
        self.status = status
        self.body = body


def free_ports(count):
    """Ports that nothing listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Agent:
    """Starts on entering the `with` block, stops by SIGTERM on leaving it.

    `extra` are lines of `[storage-proxy]`, `tables` whole tables, `volumes` the tables that describe the volumes;
    `wrapper` is a command that is to run the agent. `place` is where its folder is made, `tls` are the files of the
    client API's certificate and key.
    """

    level = "INFO"

    def __init__(self, extra="", ambient_capabilities="", tables="", volumes=PLAIN_VOLUME, wrapper=(), place=None, tls=None):
        self.extra = extra
        self.client_tls = "ssl-enabled = false"
        self.tables = tables
        self.place = place
        self.tls = tls
        self.ambient_capabilities = ambient_capabilities
        self.volumes = volumes
        self.wrapper = wrapper
        self.token_secret = secrets.token_hex(32)
        self.manager_secret = secrets.token_hex(32)
        self.process = None

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="storage-agent-test-", dir=self.place))
        self.volume = self.folder / "volume"
        self.log = self.folder / "agent.log"
        self.volume.mkdir()
        client_port, manager_port = free_ports(2)
        self.client = f"{'https' if self.tls else 'http'}://127.0.0.1:{client_port}"
        if self.tls:
            self.client_tls = 'ssl-enabled = true\nssl-cert = "{}"\nssl-privkey = "{}"'.format(*self.tls)
        self.manager = f"http://127.0.0.1:{manager_port}"
        self.config = config = self.folder / "storage-proxy.toml"
        settings = vars(self) | {"level": self.level, "volumes": self.volumes.format(volume=self.volume)}
        config.write_text(CONFIG.format(client_port=client_port, manager_port=manager_port, **settings))
        config.chmod(0o600)
        # The build's folder may be closed to the unprivileged user.
        self.binary = binary = shutil.copy(os.environ["AGENT_BINARY"], self.folder / "storage-agent")
        if os.getuid() == 0:
            for path in (self.folder, self.volume, config):
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        self.command = [*self.wrapper, *self.identity(), binary, "-f", str(config)]
        self.start()
        return self

    def identity(self):
        """The command that gives up root's identity; an ordinary user has none to give up."""
        if os.getuid() != 0:
            return []
        command = ["setpriv", "--reuid", str(UNPRIVILEGED), "--regid", str(UNPRIVILEGED), "--clear-groups"]
        if self.ambient_capabilities:
            added = ",".join(f"+{name}" for name in self.ambient_capabilities.split(","))
            return [*command, f"--inh-caps={added}", f"--ambient-caps={added}"]
        # As a systemd unit with an empty CapabilityBoundingSet= does: only root can empty that set.
        return [*command, "--bounding-set=-all"]

    def start(self):
        """Starts the agent, again after `stop`."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.manager + "/status", timeout=2) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the agent did not start: {self.command}\n{self.log.read_text(errors='replace')}")

    def __exit__(self, *_):
        self.stop()
        if not os.environ.get("TESTS_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def status(self, path):
        """The status of a reply that needs no secret, such as that of `/readyz`."""
        try:
            with urllib.request.urlopen(self.manager + path, timeout=30) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code

    def check(self):
        """What `storage-agent check` says of the configuration, as the same user."""
        command = [*self.identity(), self.binary, "check", "--json", "-f", str(self.config)]
        found = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)
        return json.loads(found.stdout)

    def stop(self, patience=30):
        """Asks the agent to stop; returns its exit code, or None when it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                # A thread that waits for a file system may keep even a killed process.
                self.process.wait(60)
                return None
        return self.process.returncode

    def kill(self):
        """Ends the agent by SIGKILL, as a machine that runs out of memory does."""
        self.process.kill()
        self.process.wait(60)

    def call(self, method, path, **parameters):
        """One manager call; returns the reply's JSON, its bytes when it isn't JSON, or None when it is empty."""
        headers = {"X-BackendAI-Storage-Auth-Token": self.manager_secret, "Content-Type": "application/json"}
        body = json.dumps(parameters).encode() if parameters else None
        request = urllib.request.Request(self.manager + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                content = reply.read()
                is_json = "json" in reply.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read()) from None
        return json.loads(content) if is_json and content else content or None

    def sign(self, claims):
        """A token with these claims, as another instance that shares the secret would sign it."""
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
        signed = b".".join(parts)
        signature = hmac.digest(self.token_secret.encode(), signed, "sha256")
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    def proc_status(self):
        """The fields of `/proc/PID/status` (proc_pid_status(5)) as text."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def privileges(self):
        """What is left of privilege in the running process, as a list of findings; empty when all is given up."""
        status = self.proc_status()
        findings = [f"uid {uid}" for uid in status["Uid"].split() if uid == "0"]
        # An ordinary user cannot empty the bounding set, and it grants nothing by itself.
        ours = os.getuid() == 0 and not self.ambient_capabilities
        sets = CAPABILITY_SETS if ours else [name for name in CAPABILITY_SETS if name != "CapBnd"]
        findings += [f"{name} {status[name]}" for name in sets if int(status[name], 16)]
        if status["NoNewPrivs"] != "1":
            findings.append(f"NoNewPrivs {status['NoNewPrivs']}")
        return findings

    def leaks(self):
        """The lines of the log that show a secret or a token."""
        # A JWT's first part always begins so: it is the base64 of `{"`.
        needles = (self.token_secret, self.manager_secret, "eyJ")
        text = self.log.read_text(errors="replace")
        return [line for line in text.splitlines() if any(needle in line for needle in needles)]
