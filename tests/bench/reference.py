"""The reference storage proxy, one worker of it, with the etcd and the Redis that it does not start without.

All of it listens on loopback, keeps to folders of its own, and shares the volume and the secrets of a running agent, so
that one request is good for both. Options have their defaults, but for the number of workers and of entries in a listing.
Like the agent, the reference writes a line of log for each request.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, contextmanager

from harness.agent import Agent, free_ports

from .servers import Server, wait_for

CONFIG = """\
[etcd]
namespace = "local"
addr = {{ host = "127.0.0.1", port = {etcd} }}
[storage-proxy]
node-id = "i-reference"
num-proc = 1
ipc-base-path = "{folder}/ipc"
user = {user}
group = {group}
secret = "{agent.token_secret}"
session-expire = "1d"
scandir-limit = 0
aiomonitor-termui-port = {terminal}
aiomonitor-webui-port = {web}
[api.client]
service-addr = {{ host = "127.0.0.1", port = {client} }}
ssl-enabled = false
[api.manager]
service-addr = {{ host = "127.0.0.1", port = {manager} }}
internal-addr = {{ host = "127.0.0.1", port = {internal} }}
ssl-enabled = false
secret = "{agent.manager_secret}"
[logging]
level = "INFO"
drivers = ["console"]
[volume.local]
backend = "vfs"
path = "{agent.volume}"
"""


class Redis(Server):
    """A Redis that keeps nothing."""

    def start(self):
        (self.port,) = free_ports(1)
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.folder]
        process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_for(self.port, process)
        return process


class Etcd(Server):
    """An etcd of one member."""

    def start(self):
        self.port, peers = free_ports(2)
        clients = f"http://127.0.0.1:{self.port}"
        command = ["etcd", "--data-dir", self.folder / "data", "--listen-client-urls", clients,
                   "--advertise-client-urls", clients, "--listen-peer-urls", f"http://127.0.0.1:{peers}"]
        process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_for(self.port, process)
        return process

    def put(self, key, value):
        """By the JSON that etcd speaks beside gRPC, <https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>."""
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v3/kv/put", json.dumps(encoded).encode())
        urllib.request.urlopen(request, timeout=20).close()


class Reference(Server):
    """The reference beside `agent`: `client`, `manager` and `call` are what they are for an agent."""

    call = Agent.call

    def __init__(self, place, agent, etcd):
        super().__init__(place)
        self.agent, self.etcd = agent, etcd
        self.manager_secret = agent.manager_secret

    def start(self):
        client, manager, internal, terminal, web = free_ports(5)
        self.client, self.manager = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{manager}"
        config = self.folder / "storage-proxy.toml"
        config.write_text(CONFIG.format(folder=self.folder, agent=self.agent, etcd=self.etcd.port, user=os.getuid(),
                                        group=os.getgid(), client=client, manager=manager, internal=internal,
                                        terminal=terminal, web=web))
        # A session of its own: where it cannot start, it interrupts its whole process group.
        command = [os.environ["REFERENCE_PYTHON"], "-m", "ai.backend.storage.server", "-f", config]
        process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.folder, start_new_session=True)
        wait_for(manager, process, patience=60)
        return process


@contextmanager
def beside(plan, agent):
    """A running reference for the time of the block, or None where it is not measured or does not run."""
    with ExitStack() as stack:
        running = None
        # Which interpreter has its package is said by the suite, where it could be installed.
        if plan.long and os.environ.get("REFERENCE_PYTHON"):
            try:
                redis, etcd = (stack.enter_context(server(plan.place)) for server in (Redis, Etcd))
                etcd.put("/sorna/local/config/redis/addr", f"127.0.0.1:{redis.port}")
                running = stack.enter_context(Reference(plan.place, agent, etcd))
            except (OSError, RuntimeError) as failure:
                print(f"the reference is left out: {failure}", file=sys.stderr)
        yield running
