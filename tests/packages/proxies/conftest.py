"""An agent behind a real nginx or HAProxy that runs with the packaged sample, TLS on."""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from harness.agent import Agent, free_ports

EXAMPLES = Path(__file__).parents[3] / "packaging/examples"
NODE = Path(__file__).parents[2] / "clients/node"
GIB = 1 << 30


class Proxy:
    """Runs the sample with this machine's ports and files in the places of the sample's."""

    def __init__(self, kind, agent, folder):
        self.kind, self.folder = kind, folder
        self.plain_port, self.port = free_ports(2)
        self.certificate = folder / "tls.crt"
        self.url, self.plain_url = f"https://localhost:{self.port}", f"http://localhost:{self.plain_port}"
        key = folder / "tls.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                        "-out", self.certificate], check=True, capture_output=True)
        agent_address = agent.client.removeprefix("http://")
        self.log = folder / "log"
        command = getattr(self, kind)(key, agent_address)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        self.wait()

    def sample(self, name, changes):
        text = (EXAMPLES / name).read_text()
        for old, new in changes:
            text, count = re.subn(old, str(new), text)
            assert count, f"{old} is not in {name}"
        return text

    def nginx(self, key, agent_address):
        self.temporary = [self.folder / name for name in ("body", "proxy")]
        for directory in self.temporary:
            directory.mkdir()
        sample = self.sample("nginx.conf", [
            (r"\n    listen \[::\]:.*", ""), (r"listen 80;", f"listen {self.plain_port};"),
            (r"listen 443 ssl;", f"listen {self.port} ssl;"), (r"127\.0\.0\.1:6021", agent_address),
            (r"/etc/nginx/tls/\S+\.crt", self.certificate), (r"/etc/nginx/tls/\S+\.key", key),
            (r"/var/log/nginx", self.folder), (r"storage\.example\.com", "localhost"),
        ])
        config = self.folder / "nginx.conf"
        config.write_text(f"daemon off; pid {self.folder}/pid; worker_processes 1; user {'root' if os.getuid() == 0 else 'nobody'};\n"
                          f"events {{}}\nhttp {{ client_body_temp_path {self.temporary[0]}; proxy_temp_path {self.temporary[1]};\n"
                          f"{sample}\n}}\n")
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", config, "-e", self.folder / "start.log"]

    def haproxy(self, key, agent_address):
        self.temporary = []
        both = self.folder / "both.pem"
        both.write_bytes(self.certificate.read_bytes() + key.read_bytes())
        config = self.folder / "haproxy.cfg"
        config.write_text(self.sample("haproxy.cfg", [
            (r"bind :80\b", f"bind :{self.plain_port}"), (r"bind :443\b", f"bind :{self.port}"),
            (r"127\.0\.0\.1:6021", agent_address), (r"/etc/haproxy/\S+\.pem", both),
            (r"log /dev/log local0", "log stdout format raw local0"), (r"    user haproxy\n    group haproxy\n", ""),
        ]))
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", config]

    def wait(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    self.seen = self.marks()
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.kind} did not start: {self.everything_logged()}")

    def marks(self):
        """When something was last made or removed in each directory for what the proxy keeps aside."""
        return [directory.stat().st_mtime_ns for directory in self.temporary]

    def kept_something_aside(self):
        return self.marks() != self.seen or any(any(directory.iterdir()) for directory in self.temporary)

    def resident_kib(self):
        """Memory of all its processes."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            parent = re.search(r"^PPid:\s*(\d+)", text, re.M)
            if str(self.process.pid) in (status.parent.name, parent and parent[1]):
                total += int(re.search(r"^VmHWM:\s*(\d+)", text, re.M)[1])
        return total

    def everything_logged(self):
        return "\n".join(path.read_text(errors="replace") for path in self.folder.iterdir() if path.suffix == ".log" or path == self.log)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def agent():
    with Agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of 1 GiB that does not compress."""
    path = tmp_path_factory.mktemp("data") / "large"
    block = os.urandom(64 << 20)
    with path.open("wb") as file:
        for number in range(GIB // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    yield path
    path.unlink()


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxy(request, agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    proxy = Proxy(request.param, agent, folder)
    direct, agent.client = agent.client, proxy.url
    yield proxy
    agent.client = direct
    proxy.stop()
