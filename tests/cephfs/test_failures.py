"""A volume that hangs or is gone: it costs nobody else anything, loses nothing, and comes back by itself."""

import json
import random
import signal
import threading
import time

import pytest
from conftest import CephFolder

from cluster import wait_for
from harness.agent import ApiError
from harness.folder import Folder, sha256
from harness.transfer import download, offset, patch, request

MIB = 1 << 20
SIZE = 32 * MIB
# volume-timeout, and the second before which nothing is suspected, on a machine that is busy with a cluster.
IN_TIME = 8


@pytest.fixture
def upload(agent):
    """An upload that has arrived in part."""
    folder = CephFolder(agent)
    data = random.Random(3).randbytes(SIZE)
    url = folder.upload_url("file", SIZE)
    assert patch(url, 0, data[: 4 * MIB]) == (204, 4 * MIB)
    yield folder, url, data
    folder.delete()


@pytest.fixture(autouse=True)
def ready(agent):
    assert agent.status("/readyz") == 200
    yield
    # The next test must not suffer from this one.
    wait_for("a ready agent", lambda: agent.status("/readyz") == 200)


def complete(folder, url, data):
    """Goes on where the agent says, as every client of tus does, and compares what arrived."""

    def resumed():
        status, at = offset(url)
        return status == 200 and (at,)

    (at,) = wait_for("an upload that can go on", resumed)
    assert at >= 4 * MIB, "what had been acknowledged is lost"
    assert patch(url, at, data[at:]) == (204, SIZE)
    assert sha256(download(folder.download_url("file"))) == sha256(data)


def unavailable(call, *arguments, **parameters):
    """Makes a call that must be answered 503 in time."""
    begin = time.monotonic()
    with pytest.raises(ApiError) as caught:
        call(*arguments, **parameters)
    assert caught.value.status == 503, caught.value
    assert time.monotonic() - begin < IN_TIME
    return json.loads(caught.value.body)["msg"]


def others_are_served(agent):
    begin = time.monotonic()
    folder = Folder(agent)
    assert patch(folder.upload_url("file", 4), 0, b"text") == (204, 4)
    assert download(folder.download_url("file")) == b"text"
    folder.usage()
    folder.delete()
    assert time.monotonic() - begin < 2


class Slowly:
    """A body that takes some seconds to send, so that something can happen meanwhile."""

    def __init__(self, data, seconds):
        self.pieces = [data[start : start + MIB // 2] for start in range(0, len(data), MIB // 2)]
        self.pause = seconds / len(self.pieces)

    def __iter__(self):
        for piece in self.pieces:
            time.sleep(self.pause)
            yield piece


def in_background(call):
    """Starts a call; its outcome can be asked for later."""
    outcomes = []

    def run():
        try:
            outcomes.append(call())
        except OSError as error:
            outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def outcome():
        thread.join(60)
        assert outcomes, "the call was never answered"
        return outcomes[0]

    return outcome


def test_the_mds_is_killed_and_restarted_during_an_upload(agent, cluster, upload):
    folder, url, data = upload
    rest = data[4 * MIB :]
    sending = in_background(lambda: patch(url, 4 * MIB, Slowly(rest, 6), Content_Length=len(rest)))
    time.sleep(2)
    cluster.daemons["mds"].kill()
    try:
        wait_for("an agent that is not ready", lambda: agent.status("/readyz") == 503, 20)
        assert agent.status("/livez") == 200
        others_are_served(agent)
        # The upload's own request is told in time, or its connection is closed on it while it is still sending.
        told = sending()
        assert isinstance(told, OSError) or told[0] == 503, told
    finally:
        cluster.launch("mds")
    wait_for("a ready agent", lambda: agent.status("/readyz") == 200)
    complete(folder, url, data)


def test_everything_that_a_hanging_volume_is_asked_is_answered_in_time(agent, cluster, mount, upload):
    folder, url, data = upload
    source, target, deleted = (CephFolder(agent) for _ in range(3))
    clone = {"src_volume": "ceph", "src_vfid": source.vfid, "dst_volume": "ceph", "dst_vfid": target.vfid}
    cluster.daemons["mds"].signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        calls = [
            lambda: unavailable(folder.usage),
            lambda: unavailable(folder.list),
            lambda: unavailable(folder.mkdir, "new"),
            lambda: unavailable(deleted.delete),
            lambda: unavailable(folder.describe),
            lambda: unavailable(source.limit, MIB),
            lambda: unavailable(CephFolder, agent),
            lambda: unavailable(folder.upload_url, "other", 5),
            lambda: unavailable(agent.call, "POST", "/folder/clone", **clone),
            lambda: request("GET", folder.download_url("file"), timeout=IN_TIME)[0],
            lambda: patch(url, 4 * MIB, data[4 * MIB : 5 * MIB], timeout=IN_TIME)[0],
            lambda: offset(url, timeout=IN_TIME)[0],
        ]
        # More at once than there are threads for one volume.
        asked = [in_background(call) for call in calls + [calls[0]] * 200]
        outcomes = [call() for call in asked]
        assert time.monotonic() - begin < 2 * IN_TIME
        assert set(outcomes[9:12]) == {503}, outcomes[9:12]
        assert all("does not answer" in said or "did not answer" in said for said in outcomes[:9] + outcomes[12:])
        others_are_served(agent)
        # Known to hang, it is not asked again.
        begin = time.monotonic()
        unavailable(folder.usage)
        assert time.monotonic() - begin < 0.5
    finally:
        cluster.daemons["mds"].signal(signal.SIGCONT)
    wait_for("a ready agent", lambda: agent.status("/readyz") == 200)
    complete(folder, url, data)
    # What was begun is either done as a whole by now, or not at all.
    wait_for("no half-done work", lambda: not [path for path in mount.point.glob("*/.trash")])
    assert target.path.is_dir() and not list(target.path.iterdir())


def test_ceph_fuse_is_killed_and_mounted_again(agent, mount, upload):
    folder, url, data = upload
    rest = data[4 * MIB :]
    sending = in_background(lambda: patch(url, 4 * MIB, Slowly(rest, 6), Content_Length=len(rest)))
    time.sleep(2)
    mount.kill()
    wait_for("an agent that is not ready", lambda: agent.status("/readyz") == 503, 20)
    unavailable(folder.usage)
    others_are_served(agent)
    sending()

    mount.unmount()
    assert agent.status("/readyz") == 503
    assert f"what was mounted on {mount.point} is gone" in unavailable(folder.usage), "the bare mount point must not be served"
    assert list(mount.point.iterdir()) == []

    mount.mount()
    wait_for("a ready agent", lambda: agent.status("/readyz") == 200)
    complete(folder, url, data)
