"""Scopes and folders of the XFS volume, used as Backend.AI managers and tus clients use them, in both dialects."""

import http.client
import os
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from harness.folder import Folder
from xfs.node import PROJECTS, PROJID, VOLUME, tagged


def eventually(condition, patience=20):
    """Waits for background work; the condition's last value is returned."""
    deadline = time.monotonic() + patience
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return value


class ScopedFolder(Folder):
    """A vfolder in a quota scope of its own (managers from 23.03.7 on)."""

    def __init__(self, agent, limit=None, volume="xfs", owner=None):
        self.agent, self.volume = agent, volume
        self.owner = owner or uuid.uuid4()
        self.qsid = f"user:{self.owner}"
        self.vfid = f"{self.qsid}/{uuid.uuid4().hex}"
        options = {} if limit is None else {"initial_max_size_for_quota_scope": limit}
        self.call("POST", "/folder/create", options=options)
        self.path = Path(self.call("GET", "/folder/mount")["path"])
        self.holder = self.path.parents[2]

    def call(self, method, path, **parameters):
        return self.agent.call(method, path, volume=self.volume, vfid=self.vfid, **parameters)

    def scope_call(self, method, path="/quota-scope", **parameters):
        return self.agent.call(method, path, volume=self.volume, qsid=self.qsid, **parameters)

    def set_limit(self, limit):
        return self.scope_call("PATCH", options={"limit_bytes": limit})

    def describe(self):
        reply = self.scope_call("GET")
        return reply["used_bytes"], reply["limit_bytes"]

    def unset(self):
        return self.scope_call("DELETE", "/quota-scope/quota")

    def remove_project(self):
        """Ends the folder and its project."""
        self.delete()
        eventually(lambda: not any(self.holder.iterdir()))
        self.scope_call("DELETE")

    @property
    def number(self):
        """The project's number, as the directory has it."""
        return tagged(self.holder)

    def lines(self):
        """The project's lines in the two files."""
        return lines_about(self.holder, self.owner.hex)


class BareFolder(Folder):
    """A vfolder with a project of its own (managers up to 23.03.4)."""

    def __init__(self, agent, limit=None, volume="xfs"):
        self.agent, self.volume = agent, volume
        self.owner = uuid.uuid4()
        self.vfid = str(self.owner)
        self.call("POST", "/folder/create", options=None if limit is None else {"quota": limit})
        self.path = self.holder = Path(self.call("GET", "/folder/mount")["path"])

    call = ScopedFolder.call
    number = ScopedFolder.number

    def set_limit(self, limit):
        return self.call("PATCH", "/volume/quota", size_bytes=limit)

    def describe(self):
        return self.call("GET", "/folder/used-bytes")["used_bytes"], self.call("GET", "/volume/quota")

    def unset(self):
        return self.set_limit(0)

    def remove_project(self):
        self.delete()
        eventually(lambda: not any(self.lines()))

    def lines(self):
        return lines_about(self.path, str(self.owner))


def lines_about(path, name):
    """Lines of `/etc/projects` for that directory and of `/etc/projid` for that name."""
    projects = [line for line in PROJECTS.read_text().splitlines() if line.partition(":")[2] == str(path)]
    names = [line for line in PROJID.read_text().splitlines() if line.partition(":")[0] == name]
    return projects, names


class Upload:
    """A tus upload session, its data sent piece by piece."""

    def __init__(self, folder, relpath, size):
        self.url = urlsplit(folder.upload_url(relpath, size))

    def request(self, method, headers=None, body=None):
        """Status, headers and body of the reply."""
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=120)
        try:
            connection.request(method, f"{self.url.path}?{self.url.query}", body, headers or {})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def offset(self):
        status, headers, _ = self.request("HEAD")
        assert status == 200
        return int(headers["Upload-Offset"])

    def patch(self, offset, data):
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}
        return self.request("PATCH", headers, data)

    def send(self, data, piece=1 << 20):
        """Sends what is missing of `data` in pieces. The first reply that is no success, or the last one."""
        offset, reply = self.offset(), (204, {}, b"")
        while offset < len(data):
            reply = self.patch(offset, data[offset : offset + piece])
            if reply[0] != 204:
                return reply
            offset = int(reply[1]["Upload-Offset"])
        return reply


def volume_used():
    """Bytes in use on the XFS volume, by any project or none."""
    figures = os.statvfs(VOLUME)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize
