"""TLS connections to an agent whose kernel encrypts them: every byte, every end."""

import random
import signal
import socket
import ssl
import subprocess
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.agent import Agent
from harness.folder import Folder

from .client import CIPHER, VERSIONS, Client, context, statistics
from .conftest import ABLE, MODULES, SIZES, write

ALERT, HANDSHAKE = 21, 22
EOF_WITHOUT_NOTICE = (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)


def content_of(name):
    return random.Random(SIZES[name]).randbytes(SIZES[name])


def test_the_log_says_whether_the_kernel_encrypts(agent):
    line = next(line for line in agent.log.read_text().splitlines() if "listening" in line and "client" in line)
    if not MODULES:
        assert "modprobe tls" in line
    elif "crypto/chacha20poly1305" not in MODULES:
        assert "yes, but for" in line and "CHACHA20" in line and "AES" not in line
    else:
        assert "yes" in line and "but" not in line
    said = [finding for finding in agent.check()["findings"] if finding["subject"] == "api.client.ssl-kernel"]
    assert len(said) == 1


def test_versions_and_ciphers_are_those_asked_for(connect, folder, version):
    with connect() as client:
        client.get(folder.download_url("tiny"))
        assert client.tls.version() == f"TLSv{version}" and client.tls.cipher()[0] == VERSIONS[version][1]


def test_files_of_all_sizes(connect, folder):
    with connect() as client:
        for name in SIZES:
            status, _, body = client.get(folder.download_url(name))
            assert status == 200 and body == content_of(name), name


def test_a_thousand_ranges(connect, folder):
    url, whole, chance = folder.download_url("large"), content_of("large"), random.Random(7)
    with connect() as client:
        for _ in range(1000):
            start = chance.randrange(len(whole))
            length = min(len(whole) - start, chance.choice([1, 4096, 16384, 100_000]) + chance.randrange(3))
            status, _, body = client.get(url, Range=f"bytes={start}-{start + length - 1}")
            assert status == 206 and body == whole[start:start + length], (start, length)


def test_pipelined_requests(connect, folder):
    names = [random.Random(number).choice(["tiny", "small", "short", "medium"]) for number in range(40)]
    urls = {name: folder.download_url(name) for name in set(names)}
    with connect() as client:
        for name in names:
            client.request("GET", urls[name], flush=False)
        client.flush()
        for name in names:
            assert client.reply()[2] == content_of(name), name


@pytest.mark.parametrize("dribble", [False, True], ids=["at-once", "byte-by-byte"])
def test_a_request_in_one_packet_with_the_end_of_the_handshake(connect, folder, version, dribble):
    # In TLS 1.2 the server has the last word, and nothing can be in one packet with it.
    for name in ("small", "medium"):
        with connect(handshake=False, dribble=dribble) as client:
            client.shake_hands(flush=version == "1.2")
            client.request("GET", folder.download_url(name), flush=False)
            client.request("GET", folder.download_url("short"), flush=False)
            client.flush()
            assert client.reply()[2] == content_of(name)
            assert client.reply()[2] == content_of("short")


def test_a_resumed_session(connect, folder):
    with connect() as client:
        assert client.get(folder.download_url("short"))[2] == content_of("short")
        session = client.tls.session
    with connect(session=session) as client:
        assert client.tls.session_reused
        assert client.get(folder.download_url("medium"))[2] == content_of("medium")


@pytest.mark.parametrize("piece", [100, 70_000, 8 << 20], ids=["small-writes", "writes", "one-write"])
def test_uploads(connect, folder, version, piece):
    data = random.Random(piece).randbytes(300_000 if piece == 100 else 8 << 20)
    name = f"upload-{version}-{piece}"
    url = folder.upload_url(name, len(data))
    with connect() as client:
        half = len(data) // 2
        for start, end in [(0, half), (half, len(data))]:
            client.request("PATCH", url, Upload_Offset=start, Content_Length=end - start, Tus_Resumable="1.0.0",
                           Content_Type="application/offset+octet-stream")
            for at in range(start, end, piece):
                client.write(data[at:min(at + piece, end)])
            status, headers, _ = client.reply()
            assert (status, headers["upload-offset"]) == (204, str(end))
    assert (folder.path / name).read_bytes() == data


def test_slow_readers_get_all_and_a_clean_end(connect, folder):
    """The last bytes are in the kernel for longer than an ended connection is waited for otherwise, and some of them above
    TCP, which has no room for them: the more often the less it has."""
    url, whole = folder.download_url("large"), content_of("large")

    def read_slowly(number):
        length = (2 << 20) + 5000 * number
        client = connect(receive_buffer=4096)
        client.request("GET", url, Range=f"bytes=0-{length - 1}", Connection="close")
        got = bytearray()
        while data := client.read(4096):
            got += data
            time.sleep(0.3 if len(got) > length - (120 << 10) else 0)
        return got.partition(b"\r\n\r\n")[2] == whole[:length]

    rooms = Path("/proc/sys/net/ipv4/tcp_wmem")
    usual = rooms.read_text()
    rooms.write_text("4096 16384 131072")
    try:
        with ThreadPool(24) as pool:
            assert pool.map(read_slowly, range(24)) == [True] * 24
    finally:
        rooms.write_text(usual)


def test_a_reset_harms_nobody_else(connect, folder):
    with connect() as other:
        for wanted in (1, 300_000, 2 << 20):
            client = connect()
            client.request("GET", folder.download_url("large"))
            client.take(wanted)
            client.reset()
        client = connect()
        client.get(folder.download_url("tiny"))
        client.reset()
        assert other.get(folder.download_url("short"))[2] == content_of("short")


def test_a_close_notify_is_answered_by_one(connect, folder):
    with connect() as client:
        client.get(folder.download_url("tiny"))
        begun = time.monotonic()
        client.close_notify()
        assert client.read() == b"" and time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["tiny", "medium"])
def test_a_request_in_one_packet_with_a_close_notify_is_answered(connect, folder, name):
    with connect() as client:
        begun = time.monotonic()
        client.request("GET", folder.download_url(name), flush=False)
        client.close_notify(flush=False)
        client.flush()
        # OpenSSL gives out nothing after its own close_notify; so what came is looked at as records.
        while client.feed():
            pass
        assert time.monotonic() - begun < 30
    assert sum(records(client.raw)) > SIZES[name]


def test_an_end_without_a_close_notify_ends_the_connection(connect, folder):
    with connect() as client:
        client.get(folder.download_url("tiny"))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read() == b""


@pytest.mark.parametrize("version", ["1.3"], indirect=True)
def test_a_peer_that_ends_before_the_kernel_can_have_it_is_answered(agent, certificate, version, folder):
    """The kernel takes no connection whose peer has ended it already; rustls keeps those."""
    address, before = urlsplit(agent.client), statistics()["TlsTxSw"]
    with Client((address.hostname, address.port), context(version, certificate[0])) as client:
        client.shake_hands(flush=False)
        client.request("GET", folder.download_url("short"), flush=False)
        client.close_notify(flush=False)
        # The agent must see all of it at once, so it is stopped for a moment.
        agent.process.send_signal(signal.SIGSTOP)
        client.flush()
        client.socket.shutdown(socket.SHUT_WR)
        agent.process.send_signal(signal.SIGCONT)
        while client.feed():
            pass
    assert sum(records(client.raw)) > SIZES["short"]
    assert statistics()["TlsTxSw"] == before


def records(raw):
    """The lengths of the records in there."""
    lengths, rest = [], bytes(raw)
    while rest:
        lengths.append(int.from_bytes(rest[3:5], "big"))
        rest = rest[5 + lengths[-1]:]
    return lengths


def test_an_upload_that_ends_without_a_close_notify_is_no_whole_one(connect, folder, version):
    url = folder.upload_url(f"cut-{version}", 100_000)
    with connect() as client:
        client.get(folder.download_url("tiny"))
        client.request("PATCH", url, Upload_Offset=0, Content_Length=100_000, Tus_Resumable="1.0.0",
                       Content_Type="application/offset+octet-stream")
        client.write(bytes(50_000))
        client.socket.shutdown(socket.SHUT_WR)
        with pytest.raises((AssertionError, *EOF_WITHOUT_NOTICE)):
            assert client.reply()[0] != 204
            raise AssertionError
    assert not (folder.path / f"cut-{version}").exists()


def test_a_file_that_becomes_shorter_gives_no_wrong_byte(connect, folder, version):
    name, whole = f"shrinks-{version}", content_of("large")
    write(folder.path / name, whole)
    with connect(receive_buffer=65536) as client:
        client.request("GET", folder.download_url(name))
        got = bytearray(client.read())
        with (folder.path / name).open("r+b") as file:
            file.truncate(10 << 20)
        try:
            while data := client.read():
                got += data
        except EOF_WITHOUT_NOTICE:
            pass
    body = got.partition(b"\r\n\r\n")[2]
    assert len(body) <= 10 << 20 and whole.startswith(body)


def test_data_with_a_broken_tag_ends_the_connection(agent, certificate, version, folder):
    address = urlsplit(agent.client)
    with Client((address.hostname, address.port), context(version, certificate[0])).shake_hands() as client:
        client.request("GET", folder.download_url("small"), flush=False)
        record = bytearray(client.outgoing.read())
        record[-1] ^= 1
        client.socket.sendall(record)
        with pytest.raises((AssertionError, ssl.SSLError, OSError)):
            client.reply()


def test_records_are_as_long_as_the_agent_supposes_when_it_counts_them(connect, folder):
    """12 KiB on average (`RECORD` in listener/ktls.rs)."""
    with connect() as client:
        client.get(folder.download_url("tiny"))
        before = len(client.raw)
        client.get(folder.download_url("large"), Range="bytes=1000-")
        assert len(records(client.raw[before:])) < SIZES["large"] / (12 << 10)


@pytest.mark.skipif(CIPHER == "chacha20", reason="only AES-GCM in TLS 1.2 shows its nonces")
@pytest.mark.parametrize("version", ["1.2"], indirect=True)
def test_no_nonce_is_used_twice(connect, folder):
    with connect() as client:
        for name in ("small", "medium"):
            client.get(folder.download_url(name))
    nonces, rest, encrypted = [], bytes(client.raw), False
    while rest:
        kind, length = rest[0], int.from_bytes(rest[3:5], "big")
        if encrypted:
            nonces.append(rest[5:13])
        encrypted |= kind == 20
        rest = rest[5 + length:]
    assert len(nonces) > SIZES["medium"] // 16384 and len(set(nonces)) == len(nonces)


@pytest.mark.parametrize("version", ["1.3"], indirect=True)
@pytest.mark.parametrize("command", ["k", "K"])
def test_new_keys_end_the_connection_or_are_used(agent, version, command):
    """What the kernel can't do is refused; rustls can."""
    address = urlsplit(agent.client)
    before = statistics()["TlsRxSw"]
    said = agent.log.stat().st_size
    client = subprocess.Popen(["openssl", "s_client", "-connect", address.netloc, "-tls1_3"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(1)
    for line in (command, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r"):
        try:
            client.stdin.write(line + "\n")
            client.stdin.flush()
        except BrokenPipeError:
            break
        # It ends with its input, whatever it was still to read.
        time.sleep(1)
    output, _ = client.communicate(timeout=20)
    assert "KEYUPDATE" in output
    with agent.log.open() as log:
        log.seek(said)
        refused = "changed its TLS keys" in log.read()
    assert refused == ABLE and ("HTTP/1.1 200" in output) != ABLE
    assert statistics()["TlsRxSw"] - before == ABLE


@pytest.mark.skipif(not ABLE, reason="the client's records are made by the same kernel")
@pytest.mark.parametrize("version", ["1.3"], indirect=True)
@pytest.mark.parametrize("kind, content, reason", [
    (ALERT, b"\2\x28", "TLS alert HandshakeFailure"),
    (ALERT, b"\2", "out of place: Alert"),
    (HANDSHAKE, b"\1\0\0\0", "handshake anew: ClientHello"),
    (HANDSHAKE, bytes(16384), "handshake anew: HelloRequest"),
    (99, b"?", "out of place"),
], ids=["alert", "half-an-alert", "hello", "long", "unknown"])
def test_records_that_are_no_data(connect, agent, folder, tmp_path, kind, content, reason):
    connect.settings.keylog_filename = tmp_path / "keys"
    with connect() as client:
        client.get(folder.download_url("tiny"))
        # A client's first record of data is number 0.
        client.send_by_kernel(tmp_path / "keys", 1)
        # That the peer cancels is no end yet: Java says so before each close_notify.
        client.send_record(ALERT, b"\1\x5a")
        target = urlsplit(folder.download_url("short"))
        client.socket.sendall(f"GET {target.path}?{target.query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.reply()[2] == content_of("short")
        said = agent.log.stat().st_size
        client.send_record(kind, content)
        assert client.read() == b""
    with agent.log.open() as log:
        log.seek(said)
        assert reason in log.read()


def test_what_is_switched_off_is_not_used(certificate, version):
    with Agent(tls=certificate) as agent:
        text = agent.config.read_text().replace("ssl-enabled = true", "ssl-enabled = true\nssl-kernel = false")
        agent.config.write_text(text)
        assert agent.stop() == 0
        agent.start()
        folder = Folder(agent)
        write(folder.path / "file", content_of("medium"))
        address, before = urlsplit(agent.client), statistics()["TlsTxSw"]
        with Client((address.hostname, address.port), context(version, certificate[0])).shake_hands() as client:
            assert client.get(folder.download_url("file"))[2] == content_of("medium")
        assert statistics()["TlsTxSw"] == before
        assert not MODULES or "ssl-kernel is false" in agent.log.read_text()


def test_many_at_once(connect, folder):
    urls = {name: folder.download_url(name) for name in ("short", "medium")}
    clients = [connect() for _ in range(30)]
    for number, client in enumerate(clients):
        client.request("GET", urls["medium" if number % 3 else "short"])
    for number, client in enumerate(clients):
        assert client.reply()[2] == content_of("medium" if number % 3 else "short")
