"""Fixtures: one cluster, one mount, and one agent that serves it, for the whole run."""

import os

import pytest

from cluster import Cluster, wait_for
from harness.agent import UNPRIVILEGED, Agent
from harness.folder import Folder

# `plain` is the same mount as `ceph`, served without knowing what it is; `unprivileged` has a key without the flag `p`.
TABLES = """\
[volume.ceph]
backend = "cephfs"
path = "{ceph}"
[volume.plain]
backend = "vfs"
path = "{ceph}"
[volume.unprivileged]
backend = "cephfs"
path = "{unprivileged}"
[limits]
volume-timeout = "2s"
"""


@pytest.fixture(scope="session")
def cluster():
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def mount(cluster):
    mounted = cluster.mount("volume")
    for name in ("", "unprivileged"):
        (mounted.point / name).mkdir(exist_ok=True)
        os.chown(mounted.point / name, UNPRIVILEGED, UNPRIVILEGED)
    return mounted


@pytest.fixture(scope="session")
def unprivileged_mount(cluster, mount):
    return cluster.mount("unprivileged", client="client.user", root="/unprivileged")


@pytest.fixture(scope="session")
def agent(mount, unprivileged_mount):
    with Agent(tables=TABLES.format(ceph=mount.point, unprivileged=unprivileged_mount.point)) as running:
        yield running


class CephFolder(Folder):
    """A vfolder on CephFS, with the limit that its dialect has: of the quota scope, or of the folder itself."""

    def __init__(self, agent, bare=False, options=None):
        super().__init__(agent, volume="ceph", bare=bare, options=options)
        self.limited = self.path if bare else self.path.parent.parent.parent

    def limit(self, size):
        if self.scope:
            options = {"limit_bytes": size}
            self.agent.call("PATCH", "/quota-scope", volume="ceph", qsid=self.scope, options=options)
        else:
            self.call("PATCH", "/volume/quota", size_bytes=size)

    def told_limit(self):
        if self.scope:
            return self.describe()["limit_bytes"]
        return self.call("GET", "/volume/quota")

    def describe(self):
        return self.agent.call("GET", "/quota-scope", volume="ceph", qsid=self.scope)

    def settled(self, condition):
        """Waits until the recursive statistics, which lag, make the condition true."""
        return wait_for("statistics that are right", condition, 40)


@pytest.fixture(params=["scoped", "bare"])
def folder(agent, request):
    """A vfolder of either dialect: managers from 23.03.7 on, and those before."""
    return CephFolder(agent, bare=request.param == "bare")


@pytest.fixture
def scoped(agent):
    return CephFolder(agent)
