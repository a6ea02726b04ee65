"""A storage node: XFS volumes, other people's projects on them, the helper as systemd would start it, and the agent.

The node is set up by root and then left to the two processes. `Node.canary` is all that none of our processes may ever
change: a test compares it before and after.
"""

import fcntl
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path

from harness.agent import UNPRIVILEGED, Agent
from xfs.wire import Connection

PROJECTS, PROJID = Path("/etc/projects"), Path("/etc/projid")
VOLUME = Path("/vfroot/xfs")
OTHER = Path("/vfroot/other")
SMALL = Path("/vfroot/small")
NO_QUOTA = Path("/vfroot/noquota")
SOCKET = Path("/run/storage-agent/quota-helper.sock")
CONFIG = Path("/etc/storage-agent/quota-helper.conf")
STATE = Path("/var/lib/storage-agent-quota-helper")
# Disks of the virtual machine and how the node mounts them.
MOUNTS = {VOLUME: ("/dev/ubda", "pquota"), SMALL: ("/dev/ubdb", "pquota"), NO_QUOTA: ("/dev/ubdc", "defaults"),
          OTHER: ("/dev/ubdd", "pquota")}
# What the traced processes executed.
TRACES = Path("/run/traces")
MIB = 1 << 20
# A scope's name in the files of someone else: the helper must not take it for its own.
LOOKALIKE = uuid.UUID("c0ffee00c0ffee00c0ffee00c0ffee00")

FOREIGN_PROJECTS = f"""\
# kept by hand, do not touch
1234:{VOLUME}/foreign

77:{OTHER}/tree
  # indented
4242:{OTHER}/{LOOKALIKE.hex}
"""
FOREIGN_PROJID = f"""\
# names of the above
foreign:1234

tree:77
{LOOKALIKE.hex}:4242
"""

AGENT_TABLES = """\
[volume.xfs]
backend = "xfs"
path = "/vfroot/xfs"
[volume.small]
backend = "xfs"
path = "/vfroot/small"
[volume.noquota]
backend = "xfs"
path = "/vfroot/noquota"
[agent]
quota-helper = "/run/storage-agent/quota-helper.sock"
"""

HELPER_CONFIG = """\
# a storage node's quota helper
agent      {agent}
xfs_quota  {xfs_quota}
ids        {ids}
state      /var/lib/storage-agent-quota-helper
requests-per-second {rate}
{extra}
volume     xfs      /vfroot/xfs
volume     small    /vfroot/small
volume     noquota  /vfroot/noquota
"""


def run(*command, check=True):
    """A program's standard output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def quota(command, mount=VOLUME):
    """One command of xfs_quota, as root, without names."""
    return run("xfs_quota", "-x", "-D", "/dev/null", "-P", "/dev/null", "-c", command, str(mount))


def project(number, mount=VOLUME):
    """A project's use and hard limit in bytes, read behind the helper's back."""
    words = quota(f"quota -p -N -b -v -n {number}", mount).split()
    return (int(words[1]) * 1024, int(words[3]) * 1024) if words else (0, 0)


def fields(pid):
    """`/proc/PID/status` (proc_pid_status(5)) as text."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


# FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR (linux/fs.h): struct fsxattr holds flags, two extent figures, the project.
GET_TAG, SET_TAG, TAG, INHERIT = 0x801C581F, 0x401C5820, struct.Struct("<5I8s"), 0x200


def tagged(path):
    """The number of the project that a file or directory belongs to."""
    return tag_and_flags(path)[0]


def tag_and_flags(path):
    """The project's number, and whether new entries of the directory inherit it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        flags, _, _, number, _, _ = TAG.unpack(fcntl.ioctl(descriptor, GET_TAG, bytes(TAG.size)))
        return number, bool(flags & INHERIT)
    finally:
        os.close(descriptor)


def tag(path, number, inherit=False):
    """Gives a file or directory to a project, as its owner may."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.ioctl(descriptor, SET_TAG, TAG.pack(INHERIT if inherit else 0, 0, 0, number, 0, bytes(8)))
    finally:
        os.close(descriptor)


class Helper:
    """The quota helper, started as its unit does: socket as standard input, no environment, one capability."""

    def __init__(self, wrapper=()):
        self.wrapper = list(wrapper)
        self.log = Path("/tmp/quota-helper.log")
        self.process = None
        self.configure()

    def configure(self, agent=UNPRIVILEGED, xfs_quota="/usr/sbin/xfs_quota", ids="1000000-1999999", rate=1000, extra=""):
        CONFIG.parent.mkdir(exist_ok=True)
        CONFIG.write_text(HELPER_CONFIG.format(**{name: value for name, value in locals().items() if name != "self"}))
        CONFIG.chmod(0o644)
        STATE.mkdir(mode=0o700, exist_ok=True)

    @staticmethod
    def program():
        target = Path("/opt/quota-helper")
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copy(os.environ["HELPER_BINARY"], target)
        return str(target)

    def start(self):
        SOCKET.parent.mkdir(mode=0o755, exist_ok=True)
        SOCKET.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener, self.log.open("ab") as log:
            listener.bind(str(SOCKET))
            os.chown(SOCKET, 0, UNPRIVILEGED)
            SOCKET.chmod(0o660)
            listener.listen(16)
            command = [*self.wrapper, *self.confinement(), self.program(), "serve", "--config", str(CONFIG)]
            self.process = subprocess.Popen(command, cwd="/", env={}, stdin=listener, stdout=log, stderr=log)
        self.wait()
        return self

    @staticmethod
    def confinement():
        return ["/usr/bin/setpriv", "--bounding-set=-all,+sys_admin", "--inh-caps=-all", "--no-new-privs"]

    def wait(self, patience=20):
        """Waits until the program is in place and answers."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if as_agent(lambda: ask("status")):
                    return
            except RuntimeError:
                time.sleep(0.1)
        raise RuntimeError(f"the helper does not answer:\n{self.log.read_text(errors='replace')}")

    def stop(self, how=signal.SIGTERM):
        """Ends it and returns its exit code; the socket stays behind, as a unit's would not."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        SOCKET.unlink(missing_ok=True)
        return self.process.returncode

    def restart(self):
        self.stop()
        return self.start()

    @property
    def pid(self):
        return self.process.pid

    def new_lines(self, mark):
        """What was logged since the log had `mark` bytes."""
        return self.log.read_bytes()[mark:].decode(errors="replace")

    def logged(self):
        return self.log.stat().st_size


def ask(name, volume=None, subject=b"", *rest):
    """One request to the helper, from whoever calls."""
    with Connection(SOCKET) as connection:
        return connection.ask(name, volume, subject, *rest)


def as_agent(action, uid=UNPRIVILEGED, gid=UNPRIVILEGED):
    """What `action` returns when a process with the agent's identity runs it. It raises RuntimeError when that failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            result = (True, action())
        except BaseException as error:  # whatever happened there is reported here
            result = (False, f"{type(error).__name__}: {error}")
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(result))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    worked, value = pickle.loads(data) if data else (False, "the process died")
    if not worked:
        raise RuntimeError(value)
    return value


class Node:
    """Both processes on a node with other people's projects. The agent starts once it is asked for."""

    def __init__(self, wrapper=(), projects="", projid=""):
        self.format()
        PROJECTS.write_text(FOREIGN_PROJECTS + projects)
        PROJID.write_text(FOREIGN_PROJID + projid)
        self.seed()
        self.helper = Helper(wrapper)
        self.agent = Agent(volumes=AGENT_TABLES, wrapper=wrapper)

    @staticmethod
    def format():
        """Empty file systems, no trace of an earlier node."""
        shutil.rmtree(STATE, ignore_errors=True)
        for mount, (device, options) in MOUNTS.items():
            mount.mkdir(parents=True, exist_ok=True)
            run("umount", str(mount), check=False)
            run("mkfs.xfs", "-q", "-f", device)
            run("mount", "-o", options, device, str(mount))

    @staticmethod
    def seed():
        for mount in (VOLUME, SMALL, NO_QUOTA):
            os.chown(mount, UNPRIVILEGED, UNPRIVILEGED)
        for mount, name, number in ((VOLUME, "foreign", 1234), (OTHER, "tree", 77), (OTHER, LOOKALIKE.hex, 4242)):
            tree = mount / name
            tree.mkdir(exist_ok=True)
            (tree / "kept").write_bytes(b"kept" * 5000)
            quota(f"project -s -p {tree} {number}", mount)
            quota(f"limit -p bsoft=0 bhard=5m {number}", mount)

    def canary(self):
        """All that must never change."""
        ours = lambda line: line.partition(":")[0].isdigit() and 1000000 <= int(line.partition(":")[0]) < 2000000
        named = lambda line: line.rpartition(":")[2].isdigit() and 1000000 <= int(line.rpartition(":")[2]) < 2000000
        return {
            "projects": [line for line in PROJECTS.read_text().split("\n") if not ours(line)],
            "projid": [line for line in PROJID.read_text().split("\n") if not named(line)],
            "modes": [(oct(path.stat().st_mode), path.stat().st_uid) for path in (PROJECTS, PROJID, CONFIG, STATE)],
            "config": CONFIG.read_text(),
            "other file system": quota("report -p -b -i -N -n", OTHER),
            "foreign project": project(1234),
            "default project": project(0)[1],
            "tags": [tagged(path) for path in (VOLUME, VOLUME / "foreign", OTHER, OTHER / "tree", OTHER / LOOKALIKE.hex)],
            "contents": [hash((path / "kept").read_bytes()) for path in (VOLUME / "foreign", OTHER / "tree")],
            "etc": sorted(os.listdir("/etc")),
        }

    def __enter__(self):
        self.helper.start()
        try:
            self.agent.__enter__()
        except BaseException:
            self.helper.stop()
            raise
        return self

    def __exit__(self, *_):
        self.agent.__exit__()
        self.helper.stop()
