"""Files that nobody may touch, and a kernel's word for whether somebody did (inotify(7))."""

import ctypes
import os
import struct

from harness.agent import UNPRIVILEGED

# Everything that needs the file to be opened, changed, or given another name. The test itself does none of it.
EVENTS = {
    0x1: "read", 0x2: "written", 0x4: "attributes changed", 0x20: "opened", 0x40: "moved away", 0x80: "moved in",
    0x100: "created in", 0x200: "deleted in", 0x400: "deleted", 0x800: "moved",
}  # fmt: skip
LIBC = ctypes.CDLL(None, use_errno=True)


class Canary:
    """A folder beside the volume, of the agent's own user, with a secret that no reply may show."""

    def __init__(self, place):
        self.folder = place / "outside"
        self.secret = os.urandom(48).hex().encode()
        victims = [self.folder / name for name in ("", "swap", "swap/inner", "swap/inner/deep", "inner", "deep")]
        for path in victims:
            path.mkdir(mode=0o700)
            for name in ("secret", "file", "other", "canary-name"):
                (path / name).write_bytes(self.secret)
                os.chown(path / name, UNPRIVILEGED, UNPRIVILEGED)
        for path in victims:
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        self.before = self.state()
        self.inotify = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watched = {}
        for path in victims:
            number = LIBC.inotify_add_watch(self.inotify, os.fsencode(path), sum(EVENTS))
            assert number > 0, os.strerror(ctypes.get_errno())
            self.watched[number] = path

    def state(self):
        """What stat(2) tells of each file; asking it touches nothing."""
        found = {}
        for folder, directories, files in os.walk(self.folder):
            for name in ["."] + directories + files:
                stat = os.lstat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (
                    stat.st_ino, stat.st_mode, stat.st_uid, stat.st_nlink, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns,
                )  # fmt: skip
        return found

    def touches(self):
        """What was done to the files, as sentences; empty if nothing."""
        found = []
        try:
            data = os.read(self.inotify, 1 << 16)
        except BlockingIOError:
            data = b""
        while data:
            number, mask, _, length = struct.unpack_from("iIII", data)
            name = data[16 : 16 + length].rstrip(b"\0").decode()
            done = [text for bit, text in EVENTS.items() if mask & bit]
            found.append(f"{self.watched[number] / name}: {', '.join(done)}")
            data = data[16 + length :]
        os.close(self.inotify)
        after = self.state()
        changed = [path for path in self.before.keys() | after.keys() if self.before.get(path) != after.get(path)]
        return found + [f"{path}: {self.before.get(path)} became {after.get(path)}" for path in changed]

    def shows(self, data):
        """Whether a reply tells what it may not."""
        return self.secret in data or b"canary-name" in data
