"""Small file systems that fill up, break and vanish."""

import os
import signal
import subprocess
import time

from harness.agent import UNPRIVILEGED


def run(*command, **options):
    # A call into a file system that hangs ends by SIGKILL only.
    return subprocess.run(["timeout", "-s", "KILL", "20", *map(str, command)], check=True, capture_output=True, **options)


def wait_for(what, seconds, condition):
    """How long it took until the condition was true."""
    began = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - began < seconds, f"no {what} within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began, found


class Ext4:
    """A file system of its own in a file, owned by the agent's user."""

    def __init__(self, place, mib):
        self.point, self.image = place / "ext4", place / "ext4.image"
        self.point.mkdir()
        with self.image.open("wb") as image:
            image.truncate(mib << 20)
        run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", self.image)

    def __enter__(self):
        run("mount", "-o", "loop", self.image, self.point)
        os.chown(self.point, UNPRIVILEGED, UNPRIVILEGED)
        return self

    def __exit__(self, *_):
        run("umount", "-l", self.point)

    def remount(self, mode):
        run("mount", "-o", f"remount,{mode}", self.point)

    def free(self):
        figures = os.statvfs(self.point)
        return figures.f_bavail * figures.f_frsize


class Fuse:
    """A file system whose server is a process that can be stopped and killed: bindfs(1) on a directory."""

    def __init__(self, place):
        self.point, self.backing = place / "fuse", place / "backing"
        self.backing.mkdir()
        self.point.mkdir()
        for path in (self.point, self.backing):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        self.process = None

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        self.kill()
        subprocess.run(["timeout", "-s", "KILL", "20", "umount", "-l", self.point], capture_output=True)

    def mount(self):
        command = ["bindfs", "-f", "-o", "allow_other,attr_timeout=0,entry_timeout=0", self.backing, self.point]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for("mount", 10, lambda: os.path.ismount(self.point))

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def unmount(self):
        run("umount", self.point)
