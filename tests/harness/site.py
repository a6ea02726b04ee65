"""Agents that serve one volume together, and the nginx that sends each request to a random one of them."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import requests

from .agent import CONFIG, PLAIN_VOLUME, UNPRIVILEGED, Agent, ApiError, free_ports
from .valkey import keep_if_asked


class Member(Agent):
    """One agent of a site. It can be killed and started again."""

    def __init__(self, site, number):
        super().__init__(tables=site.tables, volumes=site.volumes)
        self.site = site
        self.token_secret, self.manager_secret = site.token_secret, site.manager_secret
        self.folder = site.folder / f"agent-{number}"
        self.volume = site.mounts[number] if site.mounts else site.volume
        self.log = self.folder / "agent.log"
        self.folder.mkdir()
        self.ports = free_ports(3)
        self.client, self.manager, self.internal = (f"http://127.0.0.1:{port}" for port in self.ports)
        self.config = self.folder / "storage-proxy.toml"
        settings = vars(self) | {"level": self.level, "volumes": self.volumes.format(volume=self.volume)}
        text = CONFIG.format(client_port=self.ports[0], manager_port=self.ports[1], **settings)
        internal = f'internal-addr = "127.0.0.1:{self.ports[2]}"\n[debug]'
        self.config.write_text(text.replace("[debug]", internal, 1))
        self.config.chmod(0o600)
        self.binary = shutil.copy(os.environ["AGENT_BINARY"], self.folder / "storage-agent")
        if os.getuid() == 0:
            for path in (self.folder, self.config):
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        self.command = [*self.identity(), self.binary, "-f", str(self.config)]
        self.start()

    def restart(self):
        self.kill()
        self.start()

    def metrics(self):
        with urllib.request.urlopen(self.internal + "/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        return {line.split()[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}

    def metric(self, name):
        return self.metrics()[f"storage_agent_{name}"]


class Site:
    """Agents over one directory. `tables` is added to the configuration of each. `mounts` are where each of them sees that
    directory, if it is on a shared file system, and `volumes` the table that describes it."""

    def __init__(self, agents=1, tables="", volumes=PLAIN_VOLUME, mounts=()):
        self.count, self.tables, self.volumes, self.mounts = agents, tables, volumes, list(mounts)
        self.token_secret, self.manager_secret = secrets.token_hex(32), secrets.token_hex(32)
        self.agents = []

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="storage-agent-test-"))
        self.folder.chmod(0o755)
        self.volume = self.mounts[0] if self.mounts else self.folder / "volume"
        self.volume.mkdir(exist_ok=True)
        if os.getuid() == 0:
            os.chown(self.volume, UNPRIVILEGED, UNPRIVILEGED)
        try:
            for number in range(self.count):
                self.agents.append(Member(self, number))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for agent in self.agents:
            agent.stop(10)
        keep_if_asked(self.folder)

    @property
    def agent(self):
        return self.agents[0]

    def call(self, method, path, agent=None, patience=30, **parameters):
        """A manager's call, repeated as managers repeat it when the connection breaks."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return (agent or self.agent).call(method, path, volume="local", **parameters)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            except ApiError as error:
                if error.status not in (502, 504) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def make_folder(self, scope=None, files=3, agent=None):
        """A fresh vfolder with a few files in it; its id."""
        vfid = f"user:{scope or uuid.uuid4()}/{uuid.uuid4().hex}"
        try:
            self.call("POST", "/folder/create", agent, vfid=vfid, options={})
        except ApiError:
            # An agent may have died between making it and saying so; then the repeated call is refused.
            if not self.place(vfid).is_dir():
                raise
        self.fill(vfid, files)
        return vfid

    def place(self, vfid):
        scope, folder = vfid.rsplit("/", 1)
        scope = scope.rpartition(":")[2].replace("-", "")
        return self.volume / scope / folder[:2] / folder[2:4] / folder[4:]

    def fill(self, vfid, files, size=10):
        for number in range(files):
            path = self.place(vfid) / f"d{number % 7}" / f"f{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x" * size)
        if os.getuid() == 0:
            for path in (self.place(vfid), *self.place(vfid).rglob("*")):
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)

    def uploads(self, vfid, size, name="file.bin"):
        """The URLs at which the agents take one new upload."""
        token = self.call("POST", "/folder/file/upload", vfid=vfid, relpath=name, size=size)["token"]
        return [f"{agent.client}/upload?token={token}" for agent in self.agents]

    def delete(self, vfid, agent=None):
        return self.call("POST", "/folder/delete", agent, vfid=vfid)["bgtask_id"]

    def leftovers(self):
        """What tasks have left: records, marks and unpurged folders. Not what an agent was writing when it was killed,
        which goes after an hour."""
        found = []
        for at, folders, files in os.walk(self.volume):
            if Path(at).name == ".trash":
                found += [Path(at) / name for name in (*folders, *files) if not name.endswith((".new", ".claim"))]
        return found


def patch(url, offset, data, **options):
    headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return requests.patch(url, data=data, headers=headers, timeout=60, **options)


def told_offset(url):
    """What a HEAD says of an upload."""
    return int(requests.head(url, timeout=20).headers["Upload-Offset"])


class Nginx(contextlib.AbstractContextManager):
    """An nginx of one's own. `http` is what stands in its block of that name, `probe` a URL that answers when it is up."""

    CONFIG = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}
}}
"""

    def __init__(self, folder, http, probe):
        config = folder / "nginx.conf"
        config.write_text(self.CONFIG.format(folder=folder, http=http))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        with (folder / "nginx.log").open("ab") as log:
            self.process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                return urllib.request.urlopen(probe, timeout=2).close()
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((folder / "nginx.log").read_text()) from None
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Balancer(Nginx):
    """Sends each request to a random one of a site's agents. What it can't know is left as it comes: a request that an
    agent died of ends in an error."""

    HTTP = """\
    upstream client {{ random; {clients} }}
    upstream manager {{ random; {managers} }}
    large_client_header_buffers 4 16k;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_request_buffering off;
    client_max_body_size 0;
    server {{ listen 127.0.0.1:{client_port}; location / {{ proxy_pass http://client; }} }}
    server {{ listen 127.0.0.1:{manager_port}; location / {{ proxy_pass http://manager; }} }}
"""

    def __init__(self, site):
        folder = site.folder / "nginx"
        folder.mkdir()
        client_port, manager_port = free_ports(2)
        self.client, self.manager = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{manager_port}"

        def upstream(index):
            return " ".join(f"server 127.0.0.1:{agent.ports[index]} max_fails=0;" for agent in site.agents)

        ports = {"client_port": client_port, "manager_port": manager_port}
        http = self.HTTP.format(clients=upstream(0), managers=upstream(1), **ports)
        super().__init__(folder, http, self.manager + "/status")
