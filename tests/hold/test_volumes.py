"""Volumes that hang, die, vanish, come back, and turn read-only, while others are served."""

import json
import threading
import time
from http.client import HTTPException

import pytest

from harness.agent import ApiError
from harness.folder import Folder, sha256
from harness.transfer import download, offset, patch
from hold import latency
from hold.guarded import LONG, Guarded, table
from hold.mounts import Ext4, Fuse, wait_for

MIB = 1 << 20
REQUESTS = 10_000 if LONG else 1500
# volume-timeout, and the second before which nothing is suspected.
SUSPECTED = 2
VOLUMES = """\
[volume.local]
backend = "vfs"
path = "{{volume}}"
[volume.{name}]
backend = "vfs"
path = "{point}"
{marker}
"""
LIMITS = '[limits]\nvolume-timeout = "1s"\n'


class Traffic:
    """Threads that ask for the volume's files again and again; how each was answered, and how long that took."""

    THREADS = 8

    def __init__(self, folder):
        self.folder, self.answers, self.stopping = folder, [], threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(self.THREADS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                self.folder.list()
                status = 200
            except ApiError as error:
                status = error.status
            except (OSError, HTTPException) as error:
                status = repr(error)
            self.answers.append((status, time.monotonic() - began))
            time.sleep(0.02)

    def since(self):
        """What was answered since the last call: the statuses, and the longest time in seconds."""
        answers, self.answers = self.answers, []
        return {status for status, _ in answers}, max((took for _, took in answers), default=0)


def readiness(agent):
    """Of each volume, as `/readyz` tells it without the secret."""
    return agent.status("/readyz")


def becomes(agent, status, seconds):
    took, _ = wait_for(f"readiness {status}", seconds, lambda: readiness(agent) == status)
    # Those that had been waiting are answered now, and are not counted with those that come later.
    time.sleep(0.3)
    return took


def refused(call):
    """Makes a call that must be answered 503 at once; what it says."""
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.status == 503, caught.value
    assert time.monotonic() - began < 1
    return json.loads(caught.value.body)["msg"]


def test_a_volume_that_freezes_dies_and_is_replaced(tmp_path, capsys):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(0o755)
    with Fuse(tmp_path) as fuse:
        (fuse.backing / ".marker").touch()
        volumes = VOLUMES.format(name="fuse", point=fuse.point, marker='marker = ".marker"')
        with Guarded(volumes=volumes, tables=LIMITS) as agent, Guarded() as twin:
            folder = Folder(agent, volume="fuse")
            data = bytes(range(256)) * (8 * MIB // 256)
            url = folder.upload_url("file", len(data))
            assert patch(url, 0, data[: 2 * MIB]) == (204, 2 * MIB)
            assert readiness(agent) == 200
            measured, told = {}, {}
            with Traffic(folder) as traffic:
                measured["before"] = latency.compare(agent, twin, REQUESTS)
                assert traffic.since()[0] == {200}

                fuse.freeze()
                told["seconds_until_frozen_is_unready"] = becomes(agent, 503, SUSPECTED + 2)
                traffic.since()
                measured["frozen"] = latency.compare(agent, twin, REQUESTS)
                statuses, slowest = traffic.since()
                assert statuses == {503} and slowest < 1, (statuses, slowest)
                assert readiness(agent) == 503 and agent.status("/livez") == 200
                assert "did not answer" in refused(folder.usage)
                fuse.thaw()
                told["until_thawed_is_ready"] = becomes(agent, 200, 5)
                assert at_least(url, 2 * MIB)

                fuse.kill()
                told["until_killed_is_unready"] = becomes(agent, 503, 5)
                traffic.since()
                measured["killed"] = latency.compare(agent, twin, REQUESTS)
                statuses, slowest = traffic.since()
                assert statuses == {503} and slowest < 1, (statuses, slowest)

                fuse.unmount()
                assert readiness(agent) == 503
                told_why = refused(folder.usage)
                assert f"what was mounted on {fuse.point} is gone" in told_why, told_why
                refused(lambda: Folder(agent, volume="fuse"))
                traffic.since()
                time.sleep(1)
                assert traffic.since()[0] == {503}

                fuse.mount()
                told["until_replaced_is_ready"] = becomes(agent, 200, 5)
                assert patch(url, at_least(url, 2 * MIB), data[2 * MIB :])[0] == 204
                fuse.kill()
                fuse.unmount()

            # An agent that starts without the mount knows it by the marker.
            agent.kill()
            agent.start()
            assert readiness(agent) == 503
            assert "marker" in refused(folder.usage)
            refused(lambda: Folder(agent, volume="fuse"))
            assert patch(Folder(agent).upload_url("file", 4), 0, b"text") == (204, 4)
            assert list(fuse.point.iterdir()) == [], "the directory below the mount point is filled"
            fuse.mount()
            becomes(agent, 200, 5)
            assert sha256(download(folder.download_url("file"))) == sha256(data)
    with capsys.disabled():
        print()
        table(**{name: f"{seconds:.2f} s" for name, seconds in told.items()})
        for moment, (beside, alone) in measured.items():
            print(f"  p99 of the other volume, {moment}: {latency.told(beside, alone)}")
    for moment in ("frozen", "killed"):
        beside, alone = measured[moment]
        assert beside <= alone * latency.BOUND, moment


def at_least(url, acknowledged):
    """The offset of an upload that was acknowledged so far."""
    _, (_, at) = wait_for("upload that goes on", 15, lambda: (answer := offset(url))[0] == 200 and answer)
    assert at >= acknowledged
    return at


def test_a_volume_that_turns_read_only(tmp_path, capsys):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(0o755)
    with Ext4(tmp_path, 64) as disk:
        volumes = VOLUMES.format(name="disk", point=disk.point, marker="")
        with Guarded(volumes=volumes, tables=LIMITS) as agent:
            folder = Folder(agent, volume="disk")
            url = folder.upload_url("file", 2 * MIB)
            assert patch(url, 0, bytes(MIB)) == (204, MIB)
            (folder.path / "there").write_bytes(b"text")
            assert readiness(agent) == 200
            disk.remount("ro")
            seconds = becomes(agent, 503, 5)
            assert "read only" in refused(lambda: folder.upload_url("new", 1))
            rename = {"relpath": "there", "new_name": "gone"}
            assert "read only" in refused(lambda: folder.call("POST", "/folder/file/rename", **rename))
            assert patch(url, MIB, bytes(MIB))[0] == 503
            assert download(folder.download_url("there")) == b"text", "what is there can still be read"
            Folder(agent).mkdir("new")
            disk.remount("rw")
            becomes(agent, 200, 5)
            assert patch(url, MIB, bytes(MIB)) == (204, 2 * MIB)
    with capsys.disabled():
        print()
        table(until_read_only_is_unready=f"{seconds:.2f} s")
