"""A real Valkey or Redis server of one's own on a free port, and the consumer that managers are to it."""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import msgpack
import redis

from .agent import free_ports

DATABASE = 4


def server_binary():
    return shutil.which("valkey-server") or shutil.which("redis-server")


class Valkey:
    """Starts on entering the `with` block. What it acknowledged survives `kill`, unless `settings` say otherwise."""

    def __init__(self, password=None, settings=(), sentinel=False, port=None):
        self.password = password
        self.settings = list(settings)
        self.sentinel = sentinel
        self.port = port or free_ports(1)[0]
        self.process = None

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-test-"))
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        config = self.folder / "server.conf"
        if not config.exists():
            lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "daemonize no"]
            if not self.sentinel:
                lines += ["appendonly yes", "appendfsync always", "save ''"]
            lines += self.settings
            if self.password:
                lines.append(f"requirepass {self.password}")
            config.write_text("\n".join(lines) + "\n")
        command = [server_binary(), str(config), *(["--sentinel"] if self.sentinel else [])]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 15
        while True:
            try:
                return self.client(0).ping()
            except redis.RedisError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text(errors="replace")) from None
                time.sleep(0.05)

    def kill(self):
        """SIGKILL, as a crash is."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def client(self, database=DATABASE):
        return redis.Redis(port=self.port, db=0 if self.sentinel else database, password=self.password, socket_timeout=5)

    def entries(self):
        """The stream as managers of both generations read it, in order."""
        return [Event(fields) for _, fields in self.client().xrange("events")]


class Event:
    """An entry of the stream. `old` is what managers up to 26.8 make of it, `new` what later ones do."""

    OLD = {
        "vfolder_deletion_success": ["vfid"],
        "vfolder_deletion_failure": ["vfid", "message"],
        "vfolder_clone_success": ["vfid", "dst_vfid"],
        "vfolder_clone_failure": ["vfid", "dst_vfid", "message"],
    }

    def __init__(self, fields):
        self.fields = {key.decode(): value for key, value in fields.items()}
        self.name = self.fields["name"].decode()
        self.source = self.fields["source"].decode()
        # `raw=False`: bytes that are no text would stay bytes and be noticed.
        args = msgpack.unpackb(self.fields["args"], raw=False, use_list=True)
        keys = self.OLD[self.name]
        assert len(args) == len(keys), (self.name, args)
        self.old = dict(zip(keys, args, strict=True))
        self.new = json.loads(self.fields["payload"])

    @property
    def vfid(self):
        return self.new["vfid"]


class TaskMessage:
    """A message to those who watch a task."""

    OLD = {
        "bgtask_updated": ["task_id", "current_progress", "total_progress", "message"],
        "bgtask_done": ["task_id", "message"],
        "bgtask_failed": ["task_id", "message"],
        "bgtask_cancelled": ["task_id", "message"],
    }

    def __init__(self, text):
        self.fields = json.loads(text)
        self.name = self.fields["name"]
        args = msgpack.unpackb(base64.b64decode(self.fields["args"], validate=True), raw=False)
        self.old = dict(zip(self.OLD[self.name], args, strict=True))
        self.new = json.loads(self.fields["payload"])
        self.task = self.new["task_id"]

    @property
    def final(self):
        return self.name != "bgtask_updated"


class Watcher:
    """Collects all messages of the channel while the `with` block runs."""

    def __init__(self, valkey):
        self.valkey = valkey
        self.messages = []
        self.stopped = threading.Event()

    def __enter__(self):
        self.subscription = self.valkey.client().pubsub(ignore_subscribe_messages=False)
        self.subscription.subscribe("events_all")
        assert self.subscription.get_message(timeout=5)["type"] == "subscribe"
        self.thread = threading.Thread(target=self.collect)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        self.subscription.close()

    def collect(self):
        while not self.stopped.is_set():
            message = self.subscription.get_message(ignore_subscribe_messages=True, timeout=0.2)
            if message:
                self.messages.append(TaskMessage(message["data"]))

    def of(self, task):
        return [message for message in self.messages if message.task == task]


def wait_for(condition, seconds, what):
    """Waits until `condition` gives something true, and gives it back."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return found


def keep_if_asked(folder):
    if not os.environ.get("TESTS_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)
