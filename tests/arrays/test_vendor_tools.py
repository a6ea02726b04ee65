"""XCP and the RapidFile Toolkit do the work where they are installed; where they are not, it is said once."""

import os
import uuid

import pytest

from arrays.sites import NETAPP_NEW, NETAPP_OLD, PURE_1, PURE_2, Rig, Scope, eventually
from arrays.test_scenario import FolderOf

WITH_TOOLS = [NETAPP_NEW, NETAPP_OLD, PURE_1, PURE_2]
USAGE = {"xcp": "scan", 1: "pdu", 2: "pdu"}
COPY = {"xcp": "copy", 1: "pcp", 2: "pcopy"}
DELETE = {"xcp": "delete", 1: "prm", 2: "prm"}


def used(rig, names):
    """Whether the tool was called for this, and not only asked for its version."""
    wanted = names[rig.site.tool]
    return any(wanted in call[:2] and "--version" not in call for call in rig.tools.calls())


def filled(rig):
    scope = Scope(rig)
    scope.create()
    folder = FolderOf(rig, scope)
    (folder.path / "sub").mkdir()
    (folder.path / "sub" / "na\nme.bin").write_bytes(b"x" * 1000)
    (folder.path / "two.bin").write_bytes(b"y" * 2000)
    (folder.path / "link").symlink_to("two.bin")
    own(folder.path)
    return folder


def own(path):
    """Files of the test's, as the agent's user would have made them."""
    for each in (path, *path.rglob("*")):
        if os.getuid() == 0:
            os.chown(each, path.parent.stat().st_uid, path.parent.stat().st_gid, follow_symlinks=False)


def clone(rig, folder):
    target = f"{folder.vfid.partition('/')[0]}/{uuid.uuid4().hex}"
    rig.agent.call("POST", "/folder/clone", src_volume="local", src_vfid=folder.vfid, dst_volume="local", dst_vfid=target)
    return target


def is_copied(rig, target):
    usage = rig.call("GET", "/folder/usage", vfid=target)
    return usage["file_count"] == 4 and usage["used_bytes"] >= 3000


@pytest.mark.parametrize("site", WITH_TOOLS, ids=repr)
def test_the_tool_measures_copies_and_deletes(shared, site):
    with Rig(site, shared) as rig:
        folder = filled(rig)
        usage = folder.usage()
        assert usage["file_count"] == 4
        assert 3000 <= usage["used_bytes"] < 3000 + 64 * 1024
        assert used(rig, USAGE)
        target = clone(rig, folder)
        assert eventually(lambda: is_copied(rig, target))
        assert used(rig, COPY)
        path = folder.path
        folder.delete()
        assert not path.exists()
        assert eventually(lambda: used(rig, DELETE))
        # Nothing is left of it, in the trash either.
        assert eventually(lambda: not list(rig.base.rglob("two.bin"))[1:])


@pytest.mark.parametrize("site", WITH_TOOLS, ids=repr)
def test_without_the_tool_the_agent_does_the_work_and_says_so_once(shared, site):
    with Rig(site, shared, tools=False) as rig:
        folder = filled(rig)
        for _ in range(5):
            assert folder.usage()["file_count"] == 4
        target = clone(rig, folder)
        assert eventually(lambda: is_copied(rig, target))
        folder.delete()
        tool = "XCP" if site.tool == "xcp" else "RapidFile"
        said = [line for line in rig.agent.lines() if tool.lower() in line.lower() and "WARN" in line]
        assert len(said) == 1, said
        (volume,) = rig.agent.call("GET", "/volumes")["volumes"]
        assert "fast-scan" not in volume["capabilities"]


@pytest.mark.parametrize("licence", ["EXPIRED", "NOT ACTIVATED"])
def test_xcp_without_a_licence_is_not_used(shared, licence):
    with Rig(NETAPP_NEW, shared) as rig:
        rig.tools.set(licence=licence)
        folder = filled(rig)
        assert folder.usage()["file_count"] == 4
        assert not used(rig, USAGE)
        assert sum("licen" in line.lower() and "WARN" in line for line in rig.agent.lines()) == 1


@pytest.mark.parametrize("site", WITH_TOOLS, ids=repr)
def test_a_tool_that_fails_halfway_is_not_followed_by_another_way(shared, site):
    with Rig(site, shared) as rig:
        folder = filled(rig)
        rig.tools.set(fail=[COPY[site.tool]])
        before = len(list(rig.base.rglob("two.bin")))
        try:
            clone(rig, folder)
        except Exception as error:  # noqa: BLE001 - an error at once is as good as one in the task
            assert "two.bin" not in str(error)
        assert eventually(lambda: used(rig, COPY))
        # The source is whole and no half copy shows up as a folder.
        assert len(list(rig.base.rglob("two.bin"))) == before
        assert folder.usage()["file_count"] == 4


@pytest.mark.parametrize("banner", ["", "pdu: not a version", "version pdu (RapidFile) 3.0"])
def test_an_odd_version_of_the_toolkit(shared, banner):
    with Rig(PURE_2, shared, tools=False) as rig:
        rig.agent.stop()
        rig.tools.install_rapidfile(2, banner=banner)
        rig.agent.start()
        folder = filled(rig)
        assert folder.usage()["file_count"] == 4
        # A version to come is taken for the newest that is known.
        assert used(rig, USAGE) == banner.endswith("3.0")
