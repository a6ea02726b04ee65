"""What a peer may use up: each limit is a key of the configuration, and whoever meets it is told so, or cut off."""

import json
import socket
import ssl
import subprocess
import threading
import time
import uuid
from urllib.parse import urlsplit

import pytest

from bench.client import request as plain
from harness.agent import ApiError, free_ports
from harness.folder import Folder
from harness.transfer import patch
from hold.guarded import Guarded
from hold.http import request
from hold.mounts import wait_for

TABLES = """\
[limits]
header-size = "8k"
header-fields = 40
url-size = "4k"
token-size = "2k"
json-size = "1m"
json-depth = 10
header-timeout = "1s"
body-idle-timeout = "2s"
write-idle-timeout = "2s"
connections = 40
connections-per-peer = 40
uploads-per-vfolder = 3
tasks-queued = 2
tasks-running = 1
archives = 1
archive-files = 5
archive-entries = 20
archive-depth = 4
"""


@pytest.fixture(scope="module")
def agent():
    (internal,) = free_ports(1)
    with Guarded(tables=TABLES) as agent:
        agent.stop()
        text = agent.config.read_text().replace("[debug]", f'internal-addr = "127.0.0.1:{internal}"\n[debug]', 1)
        agent.config.write_text(text)
        agent.internal = internal
        agent.start()
        yield agent


@pytest.fixture
def folder(agent):
    folder = Folder(agent)
    yield folder
    wait_for("place for a deletion", 30, lambda: succeeds(folder.delete))


def succeeds(call):
    try:
        call()
    except ApiError as error:
        assert error.status == 503, error
        return False
    return True


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def told(url, data):
    """The status of the reply to some bytes."""
    with connect(url) as sock:
        sock.sendall(data)
        return int(sock.recv(64).split()[1])


@pytest.mark.parametrize("api", ["client", "manager"])
def test_heads(agent, api):
    url = getattr(agent, api)
    head = "GET / HTTP/1.1\r\nHost: x\r\n"
    assert told(url, f"{head}X: {'x' * 6000}\r\n\r\n".encode()) == 200
    assert told(url, f"{head}X: {'x' * 9000}\r\n\r\n".encode()) == 431
    assert told(url, (head + "".join(f"X-{n}: x\r\n" for n in range(30)) + "\r\n").encode()) == 200
    assert told(url, (head + "".join(f"X-{n}: x\r\n" for n in range(60)) + "\r\n").encode()) == 431
    assert told(url, f"GET /?{'x' * 5000} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == 414


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX: "])
def test_a_head_that_does_not_come_to_its_end(agent, begin):
    with connect(agent.client) as sock:
        sock.sendall(begin)
        began = time.monotonic()
        while sock.recv(4096):
            pass
        assert 0.8 < time.monotonic() - began < 4


def test_a_body_that_stops(agent, folder):
    url = folder.upload_url("file", 10)
    with connect(url) as sock:
        sock.sendall(plain("PATCH", url, Content_Length=10, Upload_Offset=0, Content_Type="application/offset+octet-stream") + b"01234")
        began = time.monotonic()
        assert b" 408 " in sock.recv(64)
        assert 1.5 < time.monotonic() - began < 6
    assert patch(url, 5, b"56789") == (204, 10), "what arrived before is kept"


def test_a_peer_that_takes_nothing(agent, folder):
    """It loses its connection in the time, and the file that was open for it is closed."""
    (folder.path / "large").write_bytes(bytes(64 << 20))
    url = folder.download_url("large")
    before = agent.descriptors()
    with connect(url) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(plain("GET", url))
        wait_for("a download", 5, lambda: agent.descriptors() > before)
        took, _ = wait_for("an end of it", 10, lambda: agent.descriptors() <= before)
        assert took > 1


def test_tokens(agent):
    for size, said in ((1500, "token"), (3000, "token-size")):
        status, _, body = request("GET", f"{agent.client}/download?token={'x' * size}")
        assert status == 400, body
    assert b"2 KiB" in body or b"2048" in body, body


def test_json(agent):
    headers = {"X-BackendAI-Storage-Auth-Token": agent.manager_secret, "Content-Type": "application/json"}
    deep = '{"volume":' + "[" * 9 + "]" * 9 + "}"
    deeper = '{"volume":' + "[" * 10 + "]" * 10 + "}"
    for body, said in ((deep, b"not a string"), (deeper, b"deeper than 10 levels")):
        status, _, answer = request("GET", agent.manager + "/volume/hwinfo", body, headers)
        assert status == 400 and said in answer, answer
    large = json.dumps({"volume": "local", "padding": "x" * (1 << 20)})
    assert request("GET", agent.manager + "/volume/hwinfo", large, headers)[0] == 413


def refused(call, key):
    """A limit that passes again: 503, when to come back, and the key that the operator has."""
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.status == 503, caught.value
    assert key in json.loads(caught.value.body)["msg"]


def test_sessions_of_a_vfolder(agent, folder):
    urls = [folder.upload_url(f"file-{number}", 4) for number in range(3)]
    refused(lambda: folder.upload_url("one-more", 4), "limits.uploads-per-vfolder")
    assert patch(urls[0], 0, b"text")[0] == 204
    folder.upload_url("one-more", 4)


def test_tasks(agent, folder):
    """One runs, two wait, and nobody else may."""
    for number in range(3000):
        (folder.path / f"file-{number}").touch()
    clones, outcomes = [f"user:{uuid.uuid4()}/{uuid.uuid4().hex}" for _ in range(12)], []

    def clone(vfid):
        try:
            target = {"dst_volume": "local", "dst_vfid": vfid}
            agent.call("POST", "/folder/clone", src_volume="local", src_vfid=folder.vfid, **target)
            outcomes.append(None)
        except ApiError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=clone, args=(vfid,)) for vfid in clones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [error for error in outcomes if error]
    assert 0 < len(errors) < len(clones)
    assert {error.status for error in errors} == {503}
    assert all(b"limits.tasks-queued" in error.body for error in errors)


def test_archives(agent, folder):
    deep = folder.path / "a/b/c/d/e/f/g"
    deep.mkdir(parents=True)
    many = folder.path / "many"
    many.mkdir()
    for number in range(30):
        (many / f"file-{number}").touch()
    (folder.path / "large").write_bytes(bytes(64 << 20))
    with pytest.raises(ApiError) as caught:
        folder.archive_url(*(f"file-{number}" for number in range(6)))
    assert caught.value.status == 400 and b"5" in caught.value.body
    for path in ("a", "many"):
        # Found out on the way: the archive breaks off, and no program takes it for a whole one.
        with pytest.raises((OSError, AssertionError)):
            status, headers, body = request("GET", folder.archive_url(path))
            assert status == 200 and body.rfind(b"PK\x05\x06") >= 0, (status, body[:300])
    url = folder.archive_url("large")
    with connect(url) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(plain("GET", url))
        assert b" 200 " in sock.recv(32)
        status, headers, body = request("GET", url)
        assert status == 503 and headers["Retry-After"] and b"limits.archives" in body, (status, body)


def test_connections(agent):
    held = [connect(agent.client) for _ in range(40)]
    try:
        with connect(agent.client) as sock:
            answer = sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: " in answer
        assert agent.metrics()['connections_refused_total{api="client"}'] >= 1
    finally:
        for sock in held:
            sock.close()


def test_http2_is_not_spoken(tmp_path):
    """There is no stream to reset rapidly: TLS settles on HTTP/1.1, and a preface of HTTP/2 is refused."""
    names = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    subprocess.run([*command, "-out", names[0], "-keyout", names[1]], check=True, capture_output=True)
    for path in [*names, tmp_path, *tmp_path.parents][:-2]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with Guarded(tls=names) as agent:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(connect(agent.client)) as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            assert sock.recv(64)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 505", b"")
        context.set_alpn_protocols(["h2"])
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connect(agent.client))


def test_abandoned_uploads_are_swept_by_age_and_counted(agent, folder):
    """Also in folders that the process has never heard of: here, because it is another one."""
    url = folder.upload_url("abandoned", 100)
    assert patch(url, 0, b"some") == (204, 4)
    staged = [path for path in (folder.path / ".upload").iterdir() if path.suffix == ""]
    assert len(staged) == 1
    agent.stop()
    text = agent.config.read_text()
    agent.config.write_text(text.replace('session-expire = "1d"', 'session-expire = "1s"'))
    time.sleep(2.5)
    agent.start()
    wait_for("swept folder", 20, lambda: not staged[0].exists())
    assert agent.metrics()['uploads_finished_total{outcome="expired"}'] == 1
    agent.stop()
    agent.config.write_text(text)
    agent.start()
