"""The Backend.AI client SDK itself.

The SDK talks to a manager, which talks to the storage. Here a manager of four routes stands in: it does for the SDK
what the real one does, calls our manager API and hands the token and the client URL on. The SDK pins old versions of
its dependencies, so it runs in an environment and a process of its own (`sdk_driver.py`).
"""

import json
import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from harness.folder import sha256
from harness.relay import BreakingRelay

SDK = os.environ.get("SDK_PYTHON")
pytestmark = pytest.mark.skipif(not SDK, reason="the SDK's release needs Python 3.11")


class Manager(BaseHTTPRequestHandler):
    """Answers the SDK's calls for one vfolder; `server.folder` and `server.client` say which and where."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({"version": "v6.20230315", "manager": "23.09.0"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        folder, client = self.server.folder, self.server.client
        match self.path.rpartition("/")[2]:
            case "request-upload":
                url = folder.upload_url(body["path"], body["size"])
                self.reply({"token": token_of(url), "url": client + "/upload"})
            case "request-download":
                self.reply({"token": token_of(folder.download_url(body["path"])), "url": client + "/download"})
            case "mkdir":
                self.reply(folder.mkdir(body["path"]))
            case other:
                self.send_error(404, f"the stand-in manager has no route {other}")

    def reply(self, content):
        encoded = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_):
        pass


def token_of(url):
    return url.partition("token=")[2]


@contextmanager
def manager(folder, client):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Manager)
    server.folder, server.client = folder, client
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def sdk(endpoint, operation, basedir, *paths):
    driver = Path(__file__).with_name("sdk_driver.py")
    environment = {
        **os.environ,
        "BACKEND_ENDPOINT": endpoint,
        "BACKEND_ENDPOINT_TYPE": "api",
        "BACKEND_ACCESS_KEY": "AKIATEST",
        "BACKEND_SECRET_KEY": "secret",
    }
    result = subprocess.run(
        [SDK, driver, operation, basedir, *paths], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr


SIZES = {"one.bin": 1, "sub/chunk.bin": 16 << 20, "sub/deeper/large.bin": 40 << 20, "empty.bin": 0}


@pytest.fixture
def sources(tmp_path, make_file):
    for name, size in SIZES.items():
        path = tmp_path / "sources/tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_file(size).read_bytes())
    return tmp_path / "sources"


def test_uploads_a_tree(agent, folder, sources):
    with manager(folder, agent.client) as endpoint:
        sdk(endpoint, "upload", sources, "tree")
    for name in SIZES:
        assert sha256(folder.path / "tree" / name) == sha256(sources / "tree" / name)


def test_downloads(agent, folder, sources, tmp_path):
    name = "tree/sub/deeper/large.bin"
    with manager(folder, agent.client) as endpoint:
        sdk(endpoint, "upload", sources, "tree")
        (tmp_path / "got/tree/sub/deeper").mkdir(parents=True)
        sdk(endpoint, "download", tmp_path / "got", name)
    assert sha256(tmp_path / "got" / name) == sha256(sources / name)


def test_resumes_a_broken_download(agent, folder, make_file, tmp_path):
    source = make_file(40 << 20)
    stored = folder.path / "large.bin"
    stored.write_bytes(source.read_bytes())
    os.utime(stored, (1_700_000_000, 1_700_000_000))
    (tmp_path / "got").mkdir()
    with BreakingRelay(agent.client, down=15 << 20, breaks=2) as relay:
        relayed = urlunsplit(urlsplit(relay.url)._replace(path=""))
        with manager(folder, relayed) as endpoint:
            sdk(endpoint, "download", tmp_path / "got", "large.bin")
        assert relay.broken == 2
    assert sha256(tmp_path / "got/large.bin") == sha256(source)
