"""Disks that are full in the middle of an upload, of a deletion, and of a line of the log."""

import json
import os
import random
import time

import pytest

from harness.agent import UNPRIVILEGED, ApiError
from harness.folder import Folder, sha256
from harness.transfer import download, offset, patch
from hold.guarded import Guarded, table
from hold.http import request
from hold.mounts import Ext4, run, wait_for

MIB = 1 << 20
SIZE = 4 * MIB
TIMES = 20
SEED = int(os.environ.get("HOLD_SEED", time.time_ns() % 1_000_000))
VOLUMES = '[volume.local]\nbackend = "vfs"\npath = "{volume}"\n[volume.disk]\nbackend = "vfs"\npath = "%s"\n'


@pytest.fixture
def place(tmp_path):
    """A folder that the agent's user can reach."""
    for path in [tmp_path, *tmp_path.parents][:-2]:
        path.chmod(0o755)
    return tmp_path


class Ballast:
    """A file that leaves so many bytes of the disk, but for what the file system needs for the file itself."""

    def __init__(self, disk, left):
        self.path = disk.point / "ballast"
        with self.path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(disk.free() - left - (64 << 10), 4096))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.unlink()


def pieces(data, at, choose, pieces_of):
    while at < len(data):
        piece = data[at : at + choose.randrange(1, pieces_of)]
        yield at, piece
        at += len(piece)


def refusal(url, at, piece):
    """Sends bytes that do not fit; the reply."""
    headers = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}
    return request("PATCH", url, piece, headers)


def test_full_at_20_random_offsets(place, capsys):
    choose = random.Random(SEED)
    kept = []
    with Ext4(place, 48) as disk, Guarded(volumes=VOLUMES % disk.point) as agent:
        folder = Folder(agent, volume="disk")
        for turn in range(TIMES):
            data = choose.randbytes(SIZE)
            url = folder.upload_url(f"file-{turn}", SIZE)
            acknowledged = 0
            # Small pieces end on the disk's last block sooner or later; one large piece meets it in its middle.
            step = choose.choice([64 << 10, MIB, SIZE * 2])
            with Ballast(disk, choose.randrange(64 << 10, SIZE - (64 << 10))):
                room = disk.free()
                for at, piece in pieces(data, 0, choose, step):
                    status, headers, body = refusal(url, at, piece)
                    if status != 204:
                        break
                    acknowledged = int(headers["Upload-Offset"])
                assert status == 507, (status, body)
                problem = json.loads(body)
                assert problem["type"].endswith("/storage/no-space") and problem["title"] == "Insufficient Storage", problem
                assert "application/problem+json" in headers["Content-Type"]
                assert headers["Access-Control-Allow-Origin"] == "*"
                status, at = offset(url)
                assert status == 200 and acknowledged <= at < SIZE, (acknowledged, at)
                assert int(headers["Upload-Offset"]) == at, "the refusal tells what was kept"
                assert not (folder.path / f"file-{turn}").exists()
                assert at > room - (192 << 10), f"{at} bytes are kept where there was room for {room}"
                kept.append(at)
            for at, piece in pieces(data, at, choose, step):
                assert patch(url, at, piece) == (204, at + len(piece))
            assert sha256(download(folder.download_url(f"file-{turn}"))) == sha256(data)
            folder.delete_files(f"file-{turn}")
    with capsys.disabled():
        print()
        table(seed=SEED, times_full=TIMES, smallest_offset=min(kept), largest_offset=max(kept))
    assert len(set(kept)) > TIMES // 2


def test_nothing_that_needs_room_for_its_own_records_takes_the_service_down(place):
    with Ext4(place, 48) as disk, Guarded(volumes=VOLUMES % disk.point) as agent:
        source, doomed = Folder(agent, volume="disk"), Folder(agent, volume="disk")
        (source.path / "file").write_bytes(bytes(MIB))
        (doomed.path / "file").write_bytes(bytes(MIB))
        with Ballast(disk, 0):
            with (disk.point / "rest").open("wb", buffering=0) as rest, pytest.raises(OSError):
                while True:
                    rest.write(bytes(4096))
            clone = {"src_volume": "disk", "src_vfid": source.vfid, "dst_volume": "disk", "dst_vfid": "0" * 31 + "1"}
            for call in (
                lambda: agent.call("POST", "/folder/clone", **clone),
                lambda: source.upload_url("new", 10),
                lambda: source.mkdir(*(f"directory-{number}" for number in range(100))),
            ):
                try:
                    call()
                except ApiError as error:
                    assert error.status in (400, 422, 500, 507), error
            assert agent.status("/readyz") == 200
            # To delete is how room is made.
            doomed.delete()
            wait_for("end of a deletion", 10, lambda: not doomed.path.exists())
        wait_for("room", 10, lambda: disk.free() > MIB)
        assert agent.status("/readyz") == 200
        (disk.point / "rest").unlink()
        agent.call("POST", "/folder/clone", **clone)
        assert agent.call("GET", "/folder/usage", volume="disk", vfid=clone["dst_vfid"])["used_bytes"] >= MIB
        assert "panicked" not in agent.log.read_text()


LOG = '[logging.file]\npath = "%s"\nfilename = "agent.log"\nrotation-size = "64k"\nbackup-count = 2\n'


def test_a_log_whose_disk_is_full_loses_lines_and_nothing_else(place):
    logs = place / "logs"
    logs.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size=256k,uid={UNPRIVILEGED},mode=755", "logs", logs)
    try:
        with Guarded(tables=LOG % logs) as agent:
            agent.stop()
            text = agent.config.read_text().replace('drivers = ["console"]', 'drivers = ["console", "file"]')
            agent.config.write_text(text)
            agent.start()
            folder = Folder(agent)
            with (logs / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
                while True:
                    ballast.write(bytes(512))
            for number in range(300):
                assert patch(folder.upload_url(f"file-{number}", 4), 0, b"text") == (204, 4)
            assert agent.status("/readyz") == 200
            (logs / "ballast").unlink()
            # It looks every five seconds whether it can write again.
            time.sleep(5.5)
            folder.usage()
            lines = (logs / "agent.log").read_text().splitlines()
            assert any("/folder/usage" in line for line in lines[-20:]), lines[-3:]
            assert "cannot log to" in agent.log.read_text()
    finally:
        run("umount", "-l", logs)
