"""Quotas over HTTP as the kernel enforces them, for managers with quota scopes and for those before."""

import json
import os
import random
import time
import urllib.request
import uuid

import pytest

from harness.agent import UNPRIVILEGED, ApiError
from harness.folder import sha256
from xfs.node import MIB, SMALL, VOLUME, project, run, tag, tagged
from xfs.site import BareFolder, ScopedFolder, Upload, eventually, volume_used

DIALECTS = [ScopedFolder, BareFolder]


@pytest.fixture(params=DIALECTS, ids=["scoped", "bare"])
def dialect(request):
    return request.param


def download(folder, relpath):
    with urllib.request.urlopen(folder.download_url(relpath), timeout=120) as reply:
        return reply.read()


def refusal(reply):
    """The body of a client-facing error."""
    status, headers, content = reply
    assert "json" in headers["Content-Type"], content
    assert headers["Access-Control-Allow-Origin"] == "*"
    return status, json.loads(content)


def test_an_upload_beyond_the_limit_is_refused_by_the_kernel_and_goes_on_after_it_is_raised(node, dialect):
    folder = dialect(node.agent, limit=8 * MIB)
    assert project(folder.number)[1] == 8 * MIB
    data = os.urandom(20 * MIB)
    upload = Upload(folder, "big.bin", len(data))
    status, body = refusal(upload.send(data, piece=3 * MIB))
    assert status == 507, body
    assert f"quota of {8 * MIB} bytes" in body["msg"], body
    kept = upload.offset()
    assert 8 * MIB - 64 * 1024 <= kept <= 8 * MIB, "what fitted below the limit is kept, to the block"
    used, limit = folder.describe()
    assert limit == 8 * MIB and kept <= used <= 8 * MIB
    folder.set_limit(32 * MIB)
    assert upload.offset() == kept
    assert upload.send(data)[0] == 204
    assert sha256(download(folder, "big.bin")) == sha256(data)
    assert folder.describe()[1] == 32 * MIB == project(folder.number)[1]
    assert folder.describe()[0] >= len(data)


def test_full_at_20_random_offsets(node):
    seed = time.time_ns() % 1_000_000
    choose, kept, size = random.Random(seed), [], 4 * MIB
    for turn in range(20):
        limit = choose.randrange(256 << 10, size - (256 << 10)) & ~4095
        folder = ScopedFolder(node.agent, limit=limit)
        data = choose.randbytes(size)
        upload = Upload(folder, "file", size)
        piece = choose.choice([64 << 10, MIB, size])
        status, body = refusal(upload.send(data, piece))
        assert (status, body["title"]) == (507, "Insufficient Storage"), body
        kept.append(upload.offset())
        # Directories and the session's own block are charged, too.
        assert limit - (256 << 10) < kept[-1] <= limit, (seed, turn, limit, kept[-1])
        assert not (folder.path / "file").exists()
        folder.set_limit(2 * size)
        assert upload.send(data, piece)[0] == 204
        assert sha256(download(folder, "file")) == sha256(data)
        folder.remove_project()
    print(f"\nquota full at {len(set(kept))} offsets from {min(kept)} to {max(kept)} (seed {seed}): all resumed, 0 bytes lost")


def test_a_limit_is_lifted_and_set_again(node, dialect):
    folder = dialect(node.agent, limit=4 * MIB)
    folder.unset()
    assert project(folder.number)[1] == 0
    assert folder.describe()[1] in (0, None)
    data = os.urandom(6 * MIB)
    assert Upload(folder, "beyond", len(data)).send(data)[0] == 204
    more = Upload(folder, "more", len(data))
    # Below what is used: nothing is lost, nothing more fits.
    folder.set_limit(MIB)
    assert folder.describe()[1] == MIB
    assert refusal(more.send(data))[0] == 507
    assert sha256(download(folder, "beyond")) == sha256(data)


def test_a_scope_without_a_limit_has_a_project_all_the_same(node):
    folder = ScopedFolder(node.agent)
    assert 1000000 <= folder.number < 2000000
    assert project(folder.number)[1] == 0
    assert [len(lines) for lines in folder.lines()] == [1, 1]


def test_a_bare_folder_gets_its_project_with_its_first_limit(node):
    folder = BareFolder(node.agent)
    data = os.urandom(3 * MIB)
    assert Upload(folder, "before", len(data)).send(data)[0] == 204
    assert folder.number == 0 and folder.describe()[1] == 0
    folder.set_limit(4 * MIB)
    assert tagged(folder.path / "before") == folder.number != 0
    assert Upload(folder, "after", len(data)).send(data)[0] == 507


def test_the_lines_are_those_of_the_reference_proxy(node):
    scoped, bare = ScopedFolder(node.agent, MIB), BareFolder(node.agent, MIB)
    number = scoped.number
    assert scoped.lines() == ([f"{number}:{VOLUME}/{scoped.owner.hex}"], [f"{scoped.owner.hex}:{number}"])
    digits, number = bare.owner.hex, bare.number
    path = f"{VOLUME}/{digits[:2]}/{digits[2:4]}/{digits[4:]}"
    assert bare.lines() == ([f"{number}:{path}"], [f"{bare.owner}:{number}"])


def test_removed_projects_leave_no_line_no_limit_and_no_directory(node, dialect):
    before = node.canary()
    folder = dialect(node.agent, limit=4 * MIB)
    number = folder.number
    data = os.urandom(2 * MIB)
    assert Upload(folder, "content", len(data)).send(data)[0] == 204
    folder.remove_project()
    assert folder.lines() == ([], [])
    assert eventually(lambda: project(number) == (0, 0))
    assert not folder.holder.exists()
    assert node.canary() == before


def test_a_scope_with_folders_is_not_removed(node):
    folder = ScopedFolder(node.agent, limit=4 * MIB)
    with pytest.raises(ApiError) as refused:
        folder.scope_call("DELETE")
    assert refused.value.status == 409, refused.value
    assert folder.path.is_dir() and project(folder.number)[1] == 4 * MIB
    assert [len(lines) for lines in folder.lines()] == [1, 1]


def test_an_id_is_free_again_only_when_nothing_is_charged_to_it(node):
    folder = ScopedFolder(node.agent, limit=4 * MIB)
    number = folder.number
    # A container that shares the agent's uid may give any of its files this project (FS_IOC_FSSETXATTR).
    stray = VOLUME / "stray"
    stray.write_bytes(b"")
    os.chown(stray, UNPRIVILEGED, UNPRIVILEGED)
    tag(stray, number)
    folder.delete()
    eventually(lambda: not any(folder.holder.iterdir()))
    with pytest.raises(ApiError) as refused:
        folder.scope_call("DELETE")
    assert "still" in json.loads(refused.value.body)["msg"], refused.value
    others = [ScopedFolder(node.agent, limit=MIB) for _ in range(3)]
    assert number not in [other.number for other in others]
    stray.unlink()
    folder.scope_call("DELETE")
    assert not folder.holder.exists() and folder.lines() == ([], [])
    assert project(number) == (0, 0)


def test_ids_are_never_shared(node):
    folders = [dialect(node.agent, limit=MIB) for dialect in DIALECTS for _ in range(10)]
    numbers = [folder.number for folder in folders]
    assert len(set(numbers)) == len(numbers)


def test_a_full_disk_is_not_called_an_exceeded_quota(node):
    folder = ScopedFolder(node.agent, limit=200 * MIB, volume="small")
    ballast = SMALL / "ballast"
    free = os.statvfs(SMALL).f_bavail * os.statvfs(SMALL).f_frsize
    run("fallocate", "-l", str(free - 8 * MIB), str(ballast))
    try:
        data = os.urandom(40 * MIB)
        uploads = [Upload(folder, name, len(data)) for name in ("full", "over")]
        full_status, full = refusal(uploads[0].send(data))
        ballast.unlink()
        folder.set_limit(MIB)
        over_status, over = refusal(uploads[1].send(data))
    finally:
        ballast.unlink(missing_ok=True)
    assert full_status == over_status == 507
    assert f"quota of {MIB} bytes" in over["msg"], over
    assert "quota of" not in full["msg"], full


def test_a_full_scope_can_be_emptied(node, dialect):
    folder = dialect(node.agent, limit=4 * MIB)
    data = os.urandom(8 * MIB)
    assert Upload(folder, "file", len(data)).send(data)[0] == 507
    (staged,) = (folder.path / ".upload").iterdir()
    assert tagged(staged) == folder.number
    if dialect is BareFolder:
        folder.remove_project()
        return
    folder.delete()
    assert eventually(lambda: folder.describe()[0] < MIB)
    assert not folder.path.exists()


def test_a_clone_shares_blocks_and_counts_in_its_own_scope(node):
    source, owner = ScopedFolder(node.agent, limit=100 * MIB), uuid.uuid4()
    data = os.urandom(40 * MIB)
    assert Upload(source, "data", len(data)).send(data, piece=10 * MIB)[0] == 204
    run("sync", "-f", str(VOLUME))
    used_before = volume_used()
    target = f"user:{owner}/{uuid.uuid4().hex}"
    node.agent.call("POST", "/folder/clone", src_volume="xfs", src_vfid=source.vfid, dst_volume="xfs", dst_vfid=target)
    place = VOLUME / owner.hex
    assert eventually(lambda: [path for path in place.rglob("data") if path.stat().st_size == len(data)])
    (copy,) = place.rglob("data")
    assert sha256(copy) == sha256(data)
    assert tagged(copy) == tagged(place) != source.number
    run("sync", "-f", str(VOLUME))
    assert project(tagged(place))[0] >= len(data), "charged to the scope of the clone"
    assert volume_used() - used_before < 4 * MIB, "the blocks are shared"


def test_a_clone_beyond_the_targets_limit_fails_and_leaves_nothing(node):
    source, target = ScopedFolder(node.agent, limit=100 * MIB), ScopedFolder(node.agent, limit=4 * MIB)
    data = os.urandom(10 * MIB)
    assert Upload(source, "data", len(data)).send(data)[0] == 204
    vfid = f"{target.qsid}/{uuid.uuid4().hex}"
    try:
        reply = node.agent.call(
            "POST", "/folder/clone", src_volume="xfs", src_vfid=source.vfid, dst_volume="xfs", dst_vfid=vfid
        )
        task = eventually(lambda: finished(node.agent, reply["bgtask_id"]))
        assert task and task["status"] == "failed", task
    except ApiError as refused:
        assert refused.status in (500, 507), refused
    assert target.describe()[0] <= 4 * MIB
    assert eventually(lambda: not list(target.holder.rglob("data")))


def finished(agent, task):
    reply = agent.call("GET", f"/tasks/{task}")
    return reply if reply["status"] not in ("queued", "running") else None


def test_a_move_into_the_project_is_a_copy_where_the_kernel_refuses_a_rename(node, dialect):
    folder = dialect(node.agent, limit=20 * MIB)
    odd = folder.path / "odd"
    odd.mkdir()
    data = os.urandom(3 * MIB)
    tag(odd, 0)
    (odd / "file").write_bytes(data)
    for path in (odd, odd / "file"):
        os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
    assert tagged(odd / "file") == 0
    with pytest.raises(OSError, match="cross-device"):
        os.rename(odd / "file", folder.path / "file")
    folder.call("POST", "/folder/file/move", src_relpath="odd/file", dst_relpath="file")
    assert sha256(folder.path / "file") == sha256(data)
    assert not (odd / "file").exists()
    assert tagged(folder.path / "file") == folder.number


def test_managers_learn_what_the_volume_can_do(node):
    volumes = {volume["name"]: volume for volume in node.agent.call("GET", "/volumes")["volumes"]}
    assert {"vfolder", "quota"} <= set(volumes["xfs"]["capabilities"])
    assert volumes["xfs"]["backend"] == "xfs"


@pytest.mark.parametrize("limit", [0, 1, 4095, 4096, 1 << 62, (1 << 63) - 1], ids=str)
def test_every_limit_of_the_range_is_set_as_the_file_system_rounds_it(node, dialect, limit):
    folder = dialect(node.agent, limit=MIB)
    folder.set_limit(limit)
    rounded = -(-limit // 4096) * 4096
    assert project(folder.number)[1] == rounded
    assert (folder.describe()[1] or 0) in (limit, rounded)


@pytest.mark.parametrize("limit", [1 << 63, (1 << 64) - 1, -1, "five", 1.5], ids=str)
def test_other_limits_are_refused_by_name(node, dialect, limit):
    folder = dialect(node.agent, limit=MIB)
    with pytest.raises(ApiError) as refused:
        folder.set_limit(limit)
    assert refused.value.status == 400, refused.value
    assert "limit" in json.loads(refused.value.body)["msg"] or "size" in json.loads(refused.value.body)["msg"]
    assert project(folder.number)[1] == MIB
