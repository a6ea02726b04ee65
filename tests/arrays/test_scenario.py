"""The life of a quota scope, through our own APIs, on each kind of site."""

import json
import urllib.request
import uuid

import pytest

from arrays.sites import NETAPP_NEW, NETAPP_OLD, PURE_1, PURE_2, QTREE, WEKA, Scope, eventually
from harness.agent import ApiError
from harness.folder import Folder, sha256

GIB = 1 << 30
TUS = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}


def upload(folder, name, content):
    """Uploads as a tus client does: all in one request."""
    request = urllib.request.Request(folder.upload_url(name, len(content)), content, TUS, method="PATCH")
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 204


class FolderOf(Folder):
    """A vfolder in a scope of its own choice."""

    def __init__(self, rig, scope, **options):
        self.agent = rig.agent
        self.volume = "local"
        self.vfid = f"{scope.id}/{uuid.uuid4().hex}"
        self.call("POST", "/folder/create", options=options or None)
        name = self.vfid.partition("/")[2]
        self.path = scope.path / name[:2] / name[2:4] / name[4:]


@pytest.fixture
def scope(rig):
    made = Scope(rig)
    made.create(GIB if rig.site.limits == "scope" else None)
    return made


def on(*sites):
    """Runs a test on these sites alone."""
    return pytest.mark.parametrize("rig", sites, ids=repr, indirect=True, scope="module")


def test_the_volume_tells_what_it_can_do(rig):
    (volume,) = (v for v in rig.agent.call("GET", "/volumes")["volumes"] if v["name"] == "local")
    assert volume["backend"] == rig.site.backend
    assert set(volume["capabilities"]) == rig.site.capabilities


def test_a_scope_is_made_with_its_limit_and_described(rig, scope):
    assert scope.path.is_dir()
    described = scope.describe()
    if rig.site.limits == "scope":
        assert described["limit_bytes"] == GIB
        assert rig.limit_on_array(scope) == GIB
        assert described["used_bytes"] is not None and described["used_bytes"] <= 8192
    with pytest.raises(ApiError) as caught:
        scope.create()
    assert caught.value.status == 409


def test_what_is_uploaded_counts(rig, scope):
    folder = FolderOf(rig, scope)
    content = bytes(range(256)) * 4000
    upload(folder, "data.bin", content)
    assert sha256(folder.path / "data.bin") == sha256(content)
    assert folder.usage()["used_bytes"] >= len(content)
    assert folder.usage()["file_count"] == sum(1 for _ in folder.path.rglob("*"))
    if rig.site.limits != "host":
        described = eventually(lambda: (scope.describe()["used_bytes"] or 0) >= len(content) and scope.describe())
        assert len(content) <= described["used_bytes"] < len(content) + 64 * 1024


@on(NETAPP_NEW, WEKA)
def test_a_limit_is_changed_and_lifted(rig, scope):
    scope.update(2 * GIB)
    assert eventually(lambda: scope.describe()["limit_bytes"] == 2 * GIB)
    assert rig.limit_on_array(scope) == 2 * GIB
    scope.unset()
    assert eventually(lambda: not scope.describe()["limit_bytes"])
    assert rig.limit_on_array(scope) is None
    # A limit can come back.
    scope.update(GIB)
    assert eventually(lambda: scope.describe()["limit_bytes"] == GIB)


@on(NETAPP_NEW, WEKA)
def test_a_scope_without_a_limit_can_get_one(rig):
    scope = Scope(rig)
    scope.create()
    folder = FolderOf(rig, scope)
    upload(folder, "data.bin", b"x" * 10000)
    assert not scope.describe()["limit_bytes"]
    scope.update(GIB)
    assert rig.limit_on_array(scope) == GIB


@on(NETAPP_NEW, WEKA)
def test_an_update_makes_a_missing_scope(rig):
    scope = Scope(rig)
    scope.update(GIB)
    assert scope.path.is_dir()
    assert rig.limit_on_array(scope) == GIB


def test_the_first_folder_of_a_scope_makes_it(rig):
    scope = Scope(rig)
    options = {"initial_max_size_for_quota_scope": GIB} if rig.site.limits == "scope" else {}
    folder = FolderOf(rig, scope, **options)
    assert folder.path.is_dir()
    if rig.site.limits == "scope":
        assert rig.limit_on_array(scope) == GIB


@on(NETAPP_OLD, PURE_1, PURE_2)
def test_a_limit_where_there_are_none_is_refused_with_words(rig, scope):
    with pytest.raises(ApiError) as caught:
        scope.update(GIB)
    assert caught.value.status == 400
    assert json.loads(caught.value.body)["msg"]


@on(NETAPP_OLD)
def test_a_host_limit_of_the_older_netapp_generation(rig):
    rig.call("PATCH", "/volume/quota", vfid=None, size_bytes=5 * GIB)
    assert eventually(lambda: rig.array.do("state")["enforced"].get(QTREE) == 5 * GIB)
    assert rig.call("GET", "/volume/quota", vfid=None) == 5 * GIB
    assert rig.call("GET", "/folder/fs-usage")["capacity_bytes"] == 5 * GIB


def test_a_clone_has_the_same_bytes(rig, scope):
    folder = FolderOf(rig, scope)
    upload(folder, "data.bin", b"clone me" * 1000)
    folder.mkdir("sub")
    (folder.path / "sub" / "link").symlink_to("../data.bin")
    target = Scope(rig)
    target.create()
    target_id = f"{target.id}/{uuid.uuid4().hex}"
    rig.agent.call(
        "POST", "/folder/clone", src_volume="local", src_vfid=folder.vfid, dst_volume="local", dst_vfid=target_id
    )
    path = rig.call("GET", "/folder/mount", vfid=target_id)["path"]

    def listed():
        items = rig.call("POST", "/folder/file/list", vfid=target_id, relpath="")["items"]
        return {item["name"] for item in items}

    assert eventually(lambda: listed() == {"data.bin", "sub"})
    with open(f"{path}/data.bin", "rb") as file:
        assert file.read() == b"clone me" * 1000
    # Clones within one scope are what vendor tools are good for.
    sibling = f"{scope.id}/{uuid.uuid4().hex}"
    rig.agent.call("POST", "/folder/clone", src_volume="local", src_vfid=folder.vfid, dst_volume="local", dst_vfid=sibling)
    # The file, the directory and the link.
    assert eventually(lambda: rig.call("GET", "/folder/usage", vfid=sibling)["file_count"] == 3)


def test_folders_and_scopes_go(rig, scope):
    folder = FolderOf(rig, scope)
    upload(folder, "data.bin", b"x" * 5000)
    with pytest.raises(ApiError) as caught:
        scope.remove()
    assert caught.value.status == 409
    assert scope.path.is_dir()
    folder.delete()
    assert not folder.path.exists()
    # The purge goes on after the reply.
    assert eventually(lambda: removed(scope))
    assert not scope.path.exists()
    if rig.site.limits == "scope":
        state = rig.array.do("state")
        assert scope.path.name not in state.get("qtrees", {})
        assert scope.path.name not in state.get("rules", {})
        assert f"/{scope.path.name}" not in state.get("quotas", {})
    with pytest.raises(ApiError) as caught:
        scope.describe()
    assert caught.value.status == 404


def removed(scope):
    try:
        scope.remove()
    except ApiError as error:
        return error.status == 404
    return True


def test_hardware_is_healthy_with_facts_as_text(rig):
    info = rig.call("GET", "/volume/hwinfo")
    assert set(info) == {"status", "status_info", "metadata"}
    assert info["status"] == "healthy"
    assert info["metadata"]
    assert all(isinstance(value, str) for value in info["metadata"].values())


def test_capacity_is_the_arrays(rig):
    usage = rig.call("GET", "/folder/fs-usage")
    if rig.site is not NETAPP_OLD:
        assert usage["capacity_bytes"] == 1 << 40
    assert 0 < usage["used_bytes"] < 1 << 30


def test_performance_is_the_arrays(rig):
    metric = rig.call("GET", "/volume/performance-metric")["metric"]
    assert metric["iops_read"] in (120, 121)
    assert metric["iops_write"] == 40
    assert metric["io_bytes_read"] == 15728640
    assert metric["io_bytes_write"] == 5242880
    assert 310 <= metric["io_usec_read"] <= 311
    assert 520 <= metric["io_usec_write"] <= 521


def test_connections_are_reused_and_calls_bounded(rig):
    rig.array.calls(reset=True)
    for _ in range(20):
        rig.call("GET", "/folder/fs-usage")
        rig.call("GET", "/volume/performance-metric")
    calls = rig.array.calls()
    assert calls["connections"] <= 2
    assert calls["most_at_once"] <= 8
