"""Two nodes: each has its own mount of one CephFS and its own agent, and what they share is told through a Valkey."""

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import wait_for
from harness.agent import ApiError
from harness.site import Site, patch, told_offset
from harness.valkey import Valkey

CEPHFS = '[volume.local]\nbackend = "cephfs"\npath = "{volume}"\n'
CHUNK = 64 << 10


@pytest.fixture(scope="module")
def valkey():
    with Valkey() as server:
        yield server


@pytest.fixture(scope="module")
def site(cluster, mount, valkey):
    (mount.point / "nodes").mkdir()
    mounts = [cluster.mount(f"node-{number}", root="/nodes").point for number in range(2)]
    table = f'[events]\nvalkey-addr = "127.0.0.1:{valkey.port}"\n[limits]\ntasks-running = 1\n'
    with Site(agents=2, tables=table, volumes=CEPHFS, mounts=mounts) as running:
        yield running


def told(valkey, vfids):
    """The names of the events of these folders."""
    return sorted((event.vfid, event.name) for event in valkey.entries() if event.vfid in vfids)


def successes(vfids):
    return sorted((vfid, "vfolder_deletion_success") for vfid in vfids)


def test_an_upload_goes_on_at_whichever_node_its_requests_meet(site):
    vfid, data = site.make_folder(files=0), os.urandom(24 * CHUNK)
    urls = site.uploads(vfid, len(data))
    for number, offset in enumerate(range(0, len(data), CHUNK)):
        assert told_offset(urls[(number + 1) % 2]) == offset
        reply = patch(urls[number % 2], offset, data[offset : offset + CHUNK])
        assert reply.status_code == 204, (number, reply.text)
    assert [told_offset(url) for url in urls] == [len(data)] * 2
    assert [(agent.volume / site.place(vfid).relative_to(site.volume) / "file.bin").read_bytes() for agent in site.agents] == [data] * 2


def test_of_two_patches_at_both_nodes_each_time_one_is_stored_whole(site):
    vfid, rounds = site.make_folder(files=0), 12
    urls = site.uploads(vfid, rounds * CHUNK)
    expected = b""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(rounds):
            parts = [os.urandom(CHUNK) for _ in urls]
            replies = list(pool.map(patch, urls, [len(expected)] * 2, parts))
            statuses = [reply.status_code for reply in replies]
            assert sorted(statuses) == [204, 409], [reply.text for reply in replies]
            expected += parts[statuses.index(204)]
    assert (site.place(vfid) / "file.bin").read_bytes() == expected


def test_a_folder_that_both_nodes_are_told_to_delete_is_purged_once(site, valkey):
    vfids = [site.make_folder(files=20) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        tasks = list(pool.map(lambda each: site.delete(*each), [(vfid, agent) for vfid in vfids for agent in site.agents]))
    # Each request has a task, whose end is told; what they did is done once.
    wait_for("the events and an empty trash", lambda: len(told(valkey, vfids)) == len(tasks) and not site.leftovers())
    assert set(told(valkey, vfids)) == set(successes(vfids))
    ended = [line for agent in site.agents for line in agent.log.read_text().splitlines() if any(task in line for task in tasks)]
    purged = [line for line in ended if "task done" in line and '"entries":0' not in line and "entries=0" not in line]
    assert len(purged) == len(vfids), ended
    assert not any(site.place(vfid).exists() for vfid in vfids)


def test_the_work_of_a_node_whose_agent_died_is_taken_over_by_the_other_and_told_once(site, valkey):
    one, two = site.agents
    scope = uuid.uuid4()
    vfids = [site.make_folder(scope, files=30) for _ in range(10)]
    source, target = site.make_folder(scope, files=300), f"user:{scope}/{uuid.uuid4().hex}"
    for vfid in vfids:
        site.delete(vfid, one)
    with ThreadPoolExecutor(1) as pool:
        cloning = pool.submit(one.call, "POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target)
        wait_for("the clone's claim", lambda: list(site.volume.glob("*/.trash/*.clone")))
        one.kill()
        died = time.monotonic()
        with pytest.raises((OSError, ApiError)):
            cloning.result()
    try:
        wait_for("the other node's work", lambda: len(told(valkey, [*vfids, source])) >= len(vfids) + 1 and not site.leftovers())
        print(f"\nall was taken over and told {time.monotonic() - died:.1f} s after the death")
        time.sleep(2)
        assert told(valkey, [*vfids, source]) == sorted([*successes(vfids), (source, "vfolder_clone_success")])
        assert sum(1 for path in site.place(target).rglob("*") if path.is_file()) == 300
        assert two.metric("events_pending") == 0
    finally:
        one.start()
