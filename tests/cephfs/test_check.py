"""What `storage-agent check` says of a CephFS volume."""

import re
import shlex

import pytest

from harness.agent import Agent


def findings(agent, volume):
    return [finding for finding in agent.check()["findings"] if finding["subject"] == f"volume.{volume}.backend"]


def grades(agent, volume):
    return {finding["grade"] for finding in findings(agent, volume)}


def test_a_mount_that_may_set_limits_passes_and_is_left_as_it_was(agent, mount):
    before = sorted(path.name for path in mount.point.iterdir())
    said = findings(agent, "ceph")
    assert {finding["grade"] for finding in said} == {"ok"}, said
    assert any("are enforced" in finding["message"] for finding in said), said
    assert sorted(path.name for path in mount.point.iterdir()) == before


def test_a_directory_without_cephfs_is_found_out_and_not_served(agent):
    table = f'[volume.wrong]\nbackend = "cephfs"\npath = "{agent.volume}"\n'
    with pytest.raises(RuntimeError, match="(?s)volume.wrong.path.*no CephFS is mounted there"):
        with Agent(tables=table):
            pass


def test_the_missing_flag_is_named_with_the_command_that_grants_it(agent, cluster, unprivileged_mount):
    problems = [finding for finding in findings(agent, "unprivileged") if finding["grade"] == "problem"]
    assert len(problems) == 1, problems
    assert 'the key client.user has no flag "p"' in problems[0]["message"]
    command = re.search(r"ceph (auth caps client\.user .*?) \(", problems[0]["cure"]).group(1)
    try:
        cluster.ceph(*shlex.split(command.replace("=FS", "=cephfs")))
        unprivileged_mount.unmount()
        unprivileged_mount.mount()
        assert grades(agent, "unprivileged") == {"ok"}
    finally:
        cluster.ceph(*shlex.split(command.replace("=FS", "=cephfs").replace("rwp", "rw")))
        unprivileged_mount.unmount()
        unprivileged_mount.mount()
