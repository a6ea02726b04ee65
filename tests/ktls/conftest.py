"""An agent with TLS, a vfolder with files of several sizes, and the proof for each test that the kernel did the work."""

import os
import random
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.agent import UNPRIVILEGED, Agent
from harness.folder import Folder

from .client import CIPHER, Client, context, statistics

MODULES = os.environ["KTLS_MODULES"].split()
# Whether this guest's kernel can do what the clients of this run ask for.
ABLE = "net/tls/tls" in MODULES and (CIPHER != "chacha20" or "crypto/chacha20poly1305" in MODULES)
SIZES = {"empty": 0, "tiny": 1, "small": 1000, "short": 40_000, "medium": 3 << 20, "large": 24 << 20}


class Debugged(Agent):
    level = "DEBUG"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    place = tmp_path_factory.mktemp("certificate")
    files = place / "certificate.pem", place / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True)
    # The agent runs as somebody else.
    for path in (files[1], *files[1].parents[:3]):
        path.chmod(0o755)
    return files


@pytest.fixture(scope="session")
def agent(certificate):
    with Debugged(tls=certificate) as agent:
        sockets = held(agent)
        yield agent
        assert eventually(lambda: held(agent) <= sockets), f"{sockets} sockets became {held(agent)}"
        assert agent.privileges() == [] and agent.leaks() == []


@pytest.fixture(scope="session")
def folder(agent):
    folder = Folder(agent)
    for name, size in SIZES.items():
        write(folder.path / name, random.Random(size).randbytes(size))
    return folder


def write(path, data):
    path.write_bytes(data)
    os.chown(path, UNPRIVILEGED, UNPRIVILEGED)


@pytest.fixture(params=["1.2", "1.3"])
def version(request):
    return request.param


@pytest.fixture
def connect(agent, certificate, version):
    """Connects with the version and cipher that this test is about. At its end, the kernel has had each connection, in both
    directions, or none where it can't, and the agent holds no socket of any."""
    address = urlsplit(agent.client)
    settings = context(version, certificate[0])
    before, sockets, clients = statistics(), held(agent), []

    def connect(handshake=True, **options):
        client = Client((address.hostname, address.port), settings, **options)
        clients.append(client)
        return client.shake_hands() if handshake else client

    connect.settings = settings
    yield connect
    after = statistics()
    own = sum(client.by_kernel for client in clients)
    assert after["TlsTxSw"] - before["TlsTxSw"] - own == len(clients) * ABLE
    assert after["TlsRxSw"] - before["TlsRxSw"] == len(clients) * ABLE
    assert after["TlsDecryptError"] == before["TlsDecryptError"]
    for client in clients:
        client.socket.close()
    # Fewer, if one of the test before was still about to go.
    assert eventually(lambda: held(agent) <= sockets), f"{sockets} sockets became {held(agent)}"


def held(agent):
    """How many sockets the agent has open."""
    names = Path(f"/proc/{agent.process.pid}/fd").iterdir()
    return sum(is_socket(name) for name in names)


def is_socket(name):
    try:
        return os.readlink(name).startswith("socket:")
    except FileNotFoundError:
        # Closed since it was listed.
        return False


def eventually(condition, patience=10):
    deadline = time.monotonic() + patience
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value
