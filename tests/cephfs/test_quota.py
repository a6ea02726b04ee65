"""Limits: set, told, lifted and enforced, by managers of both dialects."""

import errno
import json
import os
import uuid

import pytest
from conftest import CephFolder

from harness.agent import ApiError

MIB = 1 << 20


def attribute(path, name):
    try:
        return os.getxattr(path, name).decode()
    except OSError as error:
        return errno.errorcode[error.errno]


def failure(call, *arguments, **parameters):
    """The status and the JSON of a call that fails."""
    with pytest.raises(ApiError) as caught:
        call(*arguments, **parameters)
    return caught.value.status, json.loads(caught.value.body)


def test_the_agent_is_an_ordinary_user(agent):
    assert agent.privileges() == []


def test_the_volume_tells_what_it_can(agent):
    volumes = {volume["name"]: volume for volume in agent.call("GET", "/volumes")["volumes"]}
    assert volumes["ceph"]["backend"] == "cephfs"
    assert sorted(volumes["ceph"]["capabilities"]) == ["fast-size", "quota", "vfolder"]


def test_a_limit_is_set_told_and_lifted(folder):
    unlimited = None if folder.scope else 0
    assert folder.told_limit() == unlimited
    for size in (10 * MIB, 1, (1 << 63) - 1):
        folder.limit(size)
        assert folder.told_limit() == size
        assert attribute(folder.limited, "ceph.quota.max_bytes") == str(size)
    folder.limit(0)
    assert folder.told_limit() == unlimited
    assert attribute(folder.limited, "ceph.quota.max_bytes") == "ENODATA"


def test_a_folder_is_made_with_its_limit(agent):
    scoped = CephFolder(agent, options={"initial_max_size_for_quota_scope": 5 * MIB})
    bare = CephFolder(agent, bare=True, options={"quota": "5m"})
    assert scoped.told_limit() == bare.told_limit() == 5 * MIB


def test_a_scope_is_made_once_and_removed_when_it_is_empty(agent, mount):
    qsid = f"project:{uuid.uuid4()}"
    call = lambda method, path="/quota-scope", **more: agent.call(method, path, volume="ceph", qsid=qsid, **more)
    assert failure(call, "GET")[0] == 404
    call("POST", options={"limit_bytes": 4 * MIB})
    assert call("GET") == {"used_bytes": 0, "limit_bytes": 4 * MIB}
    assert failure(call, "POST", options={"limit_bytes": 1})[0] == 409
    call("DELETE", "/quota-scope/quota")
    assert call("GET") == {"used_bytes": 0, "limit_bytes": None}
    call("DELETE")
    assert failure(call, "GET")[0] == 404
    assert not [name for name in os.listdir(mount.point) if name.endswith(".new")], "a scope that was half made"


def test_use_is_told_by_the_file_system(scoped):
    (scoped.path / "file").write_bytes(b"x" * 300_000)
    scoped.settled(lambda: scoped.describe()["used_bytes"] == 300_000)
    scoped.settled(lambda: scoped.usage() == {"file_count": 1, "used_bytes": 300_000})


def test_the_number_of_files_can_be_limited(agent, scoped):
    used = scoped.settled(lambda: agent.call("GET", "/folder/usage", volume="ceph", vfid=scoped.vfid))["file_count"]
    assert used == 0
    # The two prefix directories and the folder itself are in the scope too.
    options = {"limit_files": 3 + 2}
    agent.call("PATCH", "/quota-scope", volume="ceph", qsid=scoped.scope, options=options)
    scoped.mkdir("one", "two")
    told = scoped.settled(lambda: (told := scoped.describe())["used_files"] == 5 and told)
    status, body = failure(scoped.mkdir, "three")
    assert status == 422 and "quota" in body["results"]["failed"][0]["msg"].lower(), body
    assert told["limit_files"] == 5 and told["limit_bytes"] is None
    agent.call("DELETE", "/quota-scope/quota", volume="ceph", qsid=scoped.scope)
    scoped.mkdir("three")
    assert "limit_files" not in scoped.describe()


def test_a_folder_can_be_deleted_from_a_scope_that_is_full(agent, scoped):
    (scoped.path / "file").write_bytes(b"x" * MIB)
    scoped.settled(lambda: scoped.describe()["used_bytes"] == MIB)
    scoped.limit(MIB)
    agent.call("PATCH", "/quota-scope", volume="ceph", qsid=scoped.scope, options={"limit_files": 1})
    scoped.delete()
    scoped.settled(lambda: not os.listdir(scoped.limited))
    scoped.settled(lambda: scoped.describe()["used_bytes"] == 0)


def test_without_the_flag_p_the_reply_names_it(agent):
    qsid = f"user:{uuid.uuid4()}"
    create = {"volume": "unprivileged", "qsid": qsid, "options": {"limit_bytes": MIB}}
    status, body = failure(agent.call, "POST", "/quota-scope", **create)
    assert status == 500 and '"p"' in body["msg"], body
    assert failure(agent.call, "GET", "/quota-scope", volume="unprivileged", qsid=qsid)[0] == 404
