"""What was executed, and as whom, in the run of all modules before this one. Its name makes it the last."""

import collections
import os
import re
import threading
import time
import uuid

import pytest

from harness.agent import CAPABILITY_SETS, UNPRIVILEGED
from xfs.node import MIB, TRACES, fields
from xfs.site import BareFolder, ScopedFolder, Upload

EXECUTED = re.compile(r'^execve\("([^"]+)", .* = 0$', re.M)


def programs():
    """What each traced process became, one after the other."""
    texts = [path.read_text(errors="replace") for path in TRACES.iterdir()]
    return [[os.path.basename(program) for program in EXECUTED.findall(text)] for text in texts]


class Scan(threading.Thread):
    """Notes who runs our programs, again and again, and what the helper's children are."""

    def __init__(self, names):
        super().__init__(daemon=True)
        self.names, self.seen, self.running = names, set(), True

    def run(self):
        while self.running:
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
                    status = fields(pid)
                except OSError:
                    continue
                if program in self.names:
                    uids = tuple(sorted(set(status["Uid"].split())))
                    empty = not any(int(status[name], 16) for name in CAPABILITY_SETS)
                    self.seen.add((program, uids, empty, status["NoNewPrivs"]))
            time.sleep(0.02)


@pytest.fixture(scope="module")
def scan(node):
    """A run with everything in it, watched."""
    scan = Scan({"storage-agent", "quota-helper", "xfs_quota"})
    scan.start()
    for dialect in (ScopedFolder, BareFolder):
        folder = dialect(node.agent, limit=4 * MIB)
        data = os.urandom(6 * MIB)
        upload = Upload(folder, "file", len(data))
        assert upload.send(data)[0] == 507
        folder.set_limit(20 * MIB)
        assert upload.send(data)[0] == 204
        folder.describe()
        folder.unset()
        folder.mkdir("a/b")
        folder.remove_project()
    source = ScopedFolder(node.agent, limit=MIB)
    vfid = f"user:{uuid.uuid4()}/{uuid.uuid4().hex}"
    node.agent.call("POST", "/folder/clone", src_volume="xfs", src_vfid=source.vfid, dst_volume="xfs", dst_vfid=vfid)
    scan.running = False
    scan.join()
    return scan.seen


def test_only_the_helper_and_its_tool_have_uid_0(scan):
    assert {program for program, *_ in scan} >= {"storage-agent", "quota-helper"}
    for program, uids, empty, no_new_privs in scan:
        if program == "storage-agent":
            assert uids == (str(UNPRIVILEGED),) and empty and no_new_privs == "1", (program, uids, empty)
        else:
            assert no_new_privs == "1", program


def test_the_helper_executes_nothing_but_xfs_quota_and_the_agent_nothing_at_all(scan):
    counts = collections.Counter(name for names in programs() for name in names)
    print(f"\nexecuted in the whole run: {dict(counts)}")
    assert set(counts) == {"setpriv", "storage-agent", "quota-helper", "xfs_quota"}
    assert counts["xfs_quota"] > 100
    for names in programs():
        # A process that became the agent or the helper becomes nothing else.
        assert not {"storage-agent", "quota-helper", "xfs_quota"} & set(names[:-1]), names
