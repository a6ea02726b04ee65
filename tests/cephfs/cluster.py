"""A throw-away Ceph cluster on this host: one monitor, manager, OSD and MDS, and mounts of its file system by ceph-fuse.

Everything it writes lies in one temporary folder, nothing listens but on 127.0.0.1, and neither systemd nor a kernel
client nor a block device is needed: only root, /dev/fuse and Debian's packages. Objects are kept in the OSD's memory.
By hand: `sudo python3 tests/cephfs/cluster.py` starts one, mounts it, and takes it down on Ctrl-C.
"""

import base64
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

# Seconds. A loaded machine takes a few times what an idle one does.
PATIENCE = 60

CONF = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}
admin_socket = {folder}/$name.$pid.sock
crash_dir = {folder}/log
log_file = {folder}/log/$name.log
log_to_stderr = false
mon_cluster_log_file = {folder}/log/cluster.log
mon_data = {folder}/mon
mgr_data = {folder}/mgr
osd_data = {folder}/osd
mds_data = {folder}/mds
osd_objectstore = memstore
memstore_device_bytes = {size}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 0
mon_data_avail_warn = 1
paxos_propose_interval = 0.1
mgr_initial_modules =
mgr_stats_period = 1
client_mount_timeout = 30
# A standby or the restarted MDS takes over sooner, and recursive statistics lag 1 s instead of 5 to 20 s.
mds_beacon_interval = 1
mds_tick_interval = 0.5
mds_scatter_nudge_interval = 0.5
mds_dirstat_min_interval = 0.1
client_caps_release_delay = 1
"""

# Every key goes into the monitor's first keyring, so that none has to be made later. `proxy` may set limits (p) and make
# snapshots (s), `user` may not.
KEYS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "mgr": "allow *", "osd": "allow *", "mds": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
    "mds.a": {"mon": "allow profile mds", "mgr": "allow profile mds", "osd": "allow *", "mds": "allow"},
    "client.proxy": {"mon": "allow r", "mds": "allow rwps", "osd": "allow rw tag cephfs data=*"},
    "client.user": {"mon": "allow r", "mds": "allow rw", "osd": "allow rw tag cephfs data=*"},
}


def wait_for(what, condition, patience=PATIENCE):
    """Waits until the condition holds, and returns what it returned."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience} s: {what}")
        time.sleep(0.05)
    return found


def secret():
    """A cephx key: type AES, time of creation, length, key."""
    return base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()


def is_mounted(point):
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(point) for line in lines)


def own_processes_die_with_us(command):
    return ["setpriv", "--pdeathsig", "KILL", *command]


class Daemon:
    """One process of the cluster."""

    def __init__(self, name, command, log):
        self.name = name
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                own_processes_die_with_us(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def signal(self, number):
        self.process.send_signal(number)

    def ended(self):
        return self.process.poll() is not None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Asks it to end, also where it was stopped, and makes it."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


class Mount:
    """The file system, or a directory of it, at a directory of this host."""

    def __init__(self, cluster, point, client="client.proxy", root="/"):
        self.cluster, self.point, self.client, self.root = cluster, point, client, root
        self.daemon = None

    def mount(self):
        self.point.mkdir(exist_ok=True)
        command = [*self.cluster.command("ceph-fuse", "-n", self.client), "-r", self.root, "-f", str(self.point)]
        self.daemon = Daemon(f"ceph-fuse {self.point.name}", command, self.cluster.log("fuse"))

        def ready():
            if self.daemon.ended():
                raise RuntimeError(f"ceph-fuse ended:\n{self.cluster.log('fuse').read_text(errors='replace')[-2000:]}")
            return is_mounted(self.point)

        wait_for(f"a mount at {self.point}", ready)
        return self

    def kill(self):
        """As a crash of ceph-fuse: the mount point stays and answers ENOTCONN."""
        self.daemon.kill()

    def unmount(self):
        """Also where a server hangs: then ceph-fuse is ended first, which aborts all calls that wait."""
        if not is_mounted(self.point):
            return
        try:
            subprocess.run(["umount", self.point], check=True, capture_output=True, timeout=5)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            self.daemon.kill()
            subprocess.run(["umount", "-l", self.point], check=True, timeout=10)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.process.wait(5)
        if not self.daemon.ended():
            self.daemon.kill()


class Cluster:
    """Up inside the `with` block."""

    def __init__(self, size=4 << 30):
        self.size = size
        self.daemons = {}
        self.mounts = []

    def __enter__(self):
        # The path must be short: sockets are made in it, whose names may have 107 bytes (unix(7)).
        self.folder = Path(tempfile.mkdtemp(prefix="sa-ceph-", dir="/tmp"))
        # The agent has to get to the mount points.
        self.folder.chmod(0o711)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Clients before servers: what they still hold is written while somebody answers. The monitor goes last.
        for mount in reversed(self.mounts):
            mount.unmount()
        for name in sorted(self.daemons, key=["mds", "mgr", "osd", "mon"].index):
            self.daemons[name].end()
        if os.environ.get("TESTS_KEEP"):
            print(f"the cluster's folder is kept: {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder)

    def log(self, name):
        return self.folder / "log" / f"{name}.out"

    def command(self, program, *arguments):
        return [program, "--conf", str(self.folder / "ceph.conf"), *arguments]

    def run(self, program, *arguments):
        """Runs a tool of Ceph's to its end and returns what it printed."""
        command = self.command(program, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def ceph(self, *arguments):
        """A command to the cluster."""
        return self.run("ceph", "--connect-timeout", "30", *arguments)

    def launch(self, name):
        """Starts one of the daemons, again if need be."""
        identity = {"mon": "a", "mgr": "x", "osd": "0", "mds": "a"}[name]
        self.daemons[name] = Daemon(name, self.command(f"ceph-{name}", "-i", identity, "-f"), self.log(name))

    def mds_is_active(self):
        return "up:active" in self.ceph("mds", "stat")

    def start(self):
        for name in ("log", "mon", "mgr", "osd", "mds"):
            (self.folder / name).mkdir()
        fsid, port = uuid.uuid4(), free_port()
        conf = CONF.format(fsid=fsid, port=port, folder=self.folder, size=self.size)
        (self.folder / "ceph.conf").write_text(conf)
        keyring = self.folder / "keyring"
        keyring.touch(0o600)
        keyring.write_text("".join(keyring_entry(name, caps) for name, caps in KEYS.items()))
        monmap = str(self.folder / "monmap")
        address = f"v2:127.0.0.1:{port}"
        self.run("monmaptool", "--create", "--addv", "a", address, "--fsid", str(fsid), monmap)
        self.run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", str(keyring))
        self.launch("mon")
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd, "0")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        for name in ("osd", "mgr", "mds"):
            self.launch(name)
        self.ceph("osd", "pool", "create", "metadata", "8")
        self.ceph("osd", "pool", "create", "data", "8")
        self.ceph("fs", "new", "cephfs", "metadata", "data")
        wait_for("an active MDS", self.mds_is_active)

    def mount(self, name, client="client.proxy", root="/"):
        """One more mount, in the cluster's folder."""
        mount = Mount(self, self.folder / name, client, root)
        self.mounts.append(mount)
        return mount.mount()


def keyring_entry(name, caps):
    lines = [f"[{name}]", f"    key = {secret()}", *(f'    caps {daemon} = "{cap}"' for daemon, cap in caps.items())]
    return "\n".join(lines) + "\n"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    begin = time.monotonic()
    with Cluster() as cluster:
        point = cluster.mount("mount").point
        print(f"up after {time.monotonic() - begin:.1f} s: {point}\nceph --conf {cluster.folder}/ceph.conf status")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
