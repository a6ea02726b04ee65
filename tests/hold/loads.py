"""What clients and a manager do again and again while the agent is killed, and what must be true of it at any moment.

Every load knows what it asked for and what it was told. `inspect` is called while no agent runs: what the disk shows
then is what the next agent, and everybody who mounts the volume, will see.
"""

import contextlib
import os
import random
import threading
import time
import uuid
from http.client import HTTPException

from harness.agent import UNPRIVILEGED, ApiError
from harness.folder import Folder, sha256
from harness.transfer import offset, patch

KIB = 1 << 10
LOST = (OSError, HTTPException)
# How long a client goes on trying; far longer than any single restart takes.
PATIENCE = 60


class Load:
    """Repeats `once` in a thread until it is told to stop."""

    def __init__(self, agent, seed):
        self.agent = agent
        self.random = random.Random(seed)
        self.done = 0
        self.error = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name=f"{type(self).__name__} {seed}")

    def run(self):
        while not self.stopping.is_set():
            try:
                self.once()
                self.done += 1
            except Exception as error:  # noqa: BLE001 - told by `finish`
                self.error = error
                raise

    def finish(self):
        """Waits for the round that is under way to come to its end."""
        self.thread.join(3 * PATIENCE)
        assert not self.thread.is_alive() and self.error is None, f"{self.thread.name}: {self.error!r}"

    def patiently(self, call):
        """Makes a call until there is an answer, as a client does whose server is being restarted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except LOST:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def once(self):
        raise NotImplementedError

    def inspect(self):
        """Checks what the dead agent left; returns whether something was under way."""
        raise NotImplementedError


@contextlib.contextmanager
def running(loads):
    """Starts the loads, and stops them whatever happens meanwhile."""
    for load in loads:
        load.thread.start()
    try:
        yield
    finally:
        for load in loads:
            load.stopping.set()
    for load in loads:
        load.finish()


class Uploads(Load):
    """Uploads in small pieces, gone on with at the offset that is told, and compared byte for byte."""

    def __init__(self, agent, seed):
        super().__init__(agent, seed)
        self.folder = Folder(agent)
        self.current = None
        # Removing a file that arrived is the load's own doing, not the agent's.
        self.settling = threading.Lock()

    def once(self):
        size = self.random.randrange(1, 2048 * KIB)
        data, name = self.random.randbytes(size), f"deep/{self.done % 7}/{uuid.uuid4()}"
        url = self.patiently(lambda: self.folder.upload_url(name, size))
        self.current = (self.folder.path / name, data)
        at = acknowledged = 0
        while at < size:
            try:
                piece = data[at : at + self.random.randrange(1, 512 * KIB)]
                status, at = patch(url, at, piece)
                assert status == 204, status
                acknowledged = at
            except LOST:
                status, at = self.patiently(lambda: offset(url))
                assert status == 200, status
                assert acknowledged <= at <= size, f"{acknowledged} bytes were acknowledged, {at} of {size} are there"
        path, _ = self.current
        with self.settling:
            # After the last acknowledgement the file is at its place at once.
            assert sha256(path) == sha256(data)
            self.current = None
            path.unlink()

    def inspect(self):
        with self.settling:
            if self.current is None:
                return 0
            path, data = self.current
            if path.exists():
                assert sha256(path) == sha256(data), f"{path} is half-made"
            return 1


class Trees(Load):
    """Clones a folder, then deletes the clone. A tree is seen as a whole or not at all."""

    FILES = 40

    def __init__(self, agent, seed):
        super().__init__(agent, seed)
        self.folder = Folder(agent)
        self.content = self.furnish()
        self.clone = None
        self.deleted = False
        self.unanswered = 0

    def furnish(self):
        for number in range(self.FILES):
            path = self.folder.path / f"d{number % 5}" / f"e{number % 3}" / f"file-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.random.randbytes(self.random.randrange(1, 64 * KIB)))
        os.symlink("d0", self.folder.path / "link")
        for path in self.folder.path.rglob("*"):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)
        return fingerprint(self.folder.path)

    def once(self):
        scope = f"user:{uuid.uuid4()}"
        folder = uuid.uuid4().hex
        vfid = f"{scope}/{folder}"
        root = self.agent.volume / scope.removeprefix("user:").replace("-", "")
        self.clone, self.deleted = root / folder[:2] / folder[2:4] / folder[4:], False
        target = {"src_volume": "local", "src_vfid": self.folder.vfid, "dst_volume": "local", "dst_vfid": vfid}
        self.ask("POST", "/folder/clone", target, lambda: self.clone.exists())
        self.wait(self.clone.exists, lambda: f"the clone {self.clone}")
        assert fingerprint(self.clone) == self.content, "the clone differs"
        self.ask("POST", "/folder/delete", {"volume": "local", "vfid": vfid}, lambda: not self.clone.exists())
        self.deleted = True
        assert not self.clone.exists(), "a folder whose deletion was acknowledged is still there"
        self.wait(lambda: not trash(root), lambda: f"an empty trash: {trash(root)}")

    def ask(self, method, path, parameters, happened):
        """A manager that gets no answer asks again, unless it sees that the thing has happened."""

        def call():
            try:
                self.agent.call(method, path, **parameters)
            except ApiError as error:
                # The earlier request was carried out after all.
                if not happened():
                    raise AssertionError(f"{path}: {error}") from error
            except LOST:
                self.unanswered += 1
                raise

        self.patiently(call)

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what()}"
            time.sleep(0.01)

    def inspect(self):
        clone, deleted = self.clone, self.deleted
        if clone is None:
            return 0
        if clone.exists():
            assert not deleted, f"{clone}: its deletion was acknowledged"
            assert fingerprint(clone) == self.content, f"{clone} is half-made"
        return int(bool(trash(clone.parents[2])))


def trash(scope):
    """What is being made or purged in a scope."""
    try:
        return os.listdir(scope / ".trash")
    except FileNotFoundError:
        return []


def fingerprint(root):
    """What there is below a directory: paths, and the digests of files."""
    found = {}
    for path in sorted(root.rglob("*")):
        found[str(path.relative_to(root))] = sha256(path) if path.is_file() and not path.is_symlink() else path.is_dir()
    return found
