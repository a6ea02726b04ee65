"""Large transfers and large directories in flat memory.

Each case moves 4 GiB, or lists 100,000 entries, and then looks at the agent's peak resident memory. The kernel keeps
the peak as VmHWM; root can reset it between cases (proc(5), `clear_refs`). For an ordinary user the peaks add up, which
makes the bound stricter, never weaker.
"""

import hashlib
import http.client
import random
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.agent import Agent
from harness.folder import Folder

MIB = 1 << 20
SIZE = 4096 * MIB
BLOCK = 64 * MIB
PATCH = 256 * MIB
BOUND = 96 * MIB
ENTRIES = 100_000


@pytest.fixture(scope="module")
def folder():
    with Agent(extra="scandir-limit = 0") as agent:
        # The file and its archive, each 4 GiB.
        free = shutil.disk_usage(agent.folder).free
        if free < 9 << 30:
            pytest.fail(f"needs 9 GiB in {agent.folder.parent}, {free >> 30} GiB are free; TMPDIR chooses another place")
        yield Folder(agent)


@pytest.fixture
def peak(folder, request):
    """Resets the peak before the case and judges it afterwards."""
    agent = folder.agent
    reset = Path(f"/proc/{agent.process.pid}/clear_refs")
    try:
        reset.write_text("5")
    except PermissionError:
        pass
    started = time.monotonic()

    def judge():
        resident = int(agent.proc_status()["VmHWM"].split()[0]) * 1024
        seconds = time.monotonic() - started
        print(f"\n    peak RSS {resident / MIB:6.1f} MiB of {BOUND // MIB}, {seconds:5.1f} s  {request.node.name}")
        assert resident < BOUND, f"the agent's peak RSS was {resident / MIB:.1f} MiB"

    return judge


@pytest.fixture(scope="module")
def source():
    """4 GiB that don't compress, as blocks of which no two are alike, and their digest."""
    noise = memoryview(random.Random(4).randbytes(BLOCK))

    def blocks(start, end):
        for number in range(start // BLOCK, end // BLOCK):
            yield number.to_bytes(8, "little")
            yield noise[8:]

    digest = hashlib.sha256()
    for piece in blocks(0, SIZE):
        digest.update(piece)
    return blocks, digest.hexdigest()


def request(method, url, body=None, headers=None):
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, timeout=300)
    connection.request(method, f"{target.path}?{target.query}", body, headers or {})
    return connection.getresponse()


def read_all(stream, sink):
    buffer = memoryview(bytearray(4 * MIB))
    while count := stream.readinto(buffer):
        sink(buffer[:count])


def test_idle(peak):
    peak()


def test_upload_of_4_gib(folder, source, peak):
    blocks, _ = source
    url = folder.upload_url("large.bin", SIZE)
    for offset in range(0, SIZE, PATCH):
        headers = {
            "Upload-Offset": str(offset),
            "Content-Length": str(PATCH),
            "Content-Type": "application/offset+octet-stream",
        }
        reply = request("PATCH", url, blocks(offset, offset + PATCH), headers)
        assert (reply.status, reply.headers["Upload-Offset"]) == (204, str(offset + PATCH))
    assert (folder.path / "large.bin").stat().st_size == SIZE
    peak()


def test_download_of_4_gib(folder, source, peak):
    reply = request("GET", folder.download_url("large.bin"))
    assert (reply.status, reply.headers["Content-Length"]) == (200, str(SIZE))
    digest = hashlib.sha256()
    read_all(reply, digest.update)
    assert digest.hexdigest() == source[1]
    peak()


def test_archive_of_4_gib(folder, source, peak):
    path = folder.agent.folder / "large.zip"
    reply = request("GET", folder.archive_url("large.bin"))
    assert reply.status == 200
    with path.open("wb") as file:
        read_all(reply, file.write)
    peak()
    try:
        with zipfile.ZipFile(path) as archive:
            assert archive.getinfo("large.bin").file_size == SIZE
        for command in (["unzip", "-p", path, "large.bin"], ["bsdtar", "-xOf", path, "large.bin"]):
            with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as reader:
                digest = hashlib.sha256()
                read_all(reader.stdout, digest.update)
            assert reader.returncode == 0, command
            assert digest.hexdigest() == source[1], command
        # Compares the checksum in the archive.
        assert f"Size:       {SIZE}" in output("7z", "t", path)
    finally:
        path.unlink()


def test_listing_of_100_000_entries(folder, peak):
    folder.mkdir("crowd")
    names = {f"entry-{number:06}.bin" for number in range(ENTRIES)}
    for name in names:
        (folder.path / "crowd" / name).touch()
    assert folder.list("crowd").keys() == names
    peak()


def test_usage_of_100_000_entries(folder, peak):
    assert folder.usage()["file_count"] >= ENTRIES
    peak()


def test_archive_of_100_000_entries(folder, peak):
    path = folder.agent.folder / "crowd.zip"
    reply = request("GET", folder.download_url("crowd", archive="true"))
    with path.open("wb") as file:
        read_all(reply, file.write)
    peak()
    with zipfile.ZipFile(path) as archive:
        assert len([name for name in archive.namelist() if not name.endswith("/")]) == ENTRIES
    for command in (["unzip", "-Z1", path], ["bsdtar", "-tf", path]):
        assert len([name for name in output(*command).splitlines() if not name.endswith("/")]) == ENTRIES, command
    assert f"Files: {ENTRIES}" in output("7z", "t", path)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
