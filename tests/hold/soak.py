"""What the clients of a busy site do for minutes: each kind in a thread or a program of its own, all at once.

Every client counts what it has done and stops at its first error; nothing is forgiven.
"""

import asyncio
import json
import os
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import aiohttp
import yarl
from aiotus import core
from aiotusclient.client import TusClient

from harness.folder import Folder, sha256

MIB = 1 << 20
NODE = Path(__file__).resolve().parents[1] / "clients" / "node"


class Client:
    """Does `once` again and again until the time is over."""

    def __init__(self, agent, deadline):
        self.agent, self.deadline = agent, deadline
        self.folder = Folder(agent)
        self.done, self.error = 0, None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while time.monotonic() < self.deadline:
                self.once()
                self.done += 1
        except Exception as error:  # noqa: BLE001 - told by the test
            self.error = repr(error)

    def once(self):
        raise NotImplementedError


class WebUi(Client):
    """tus-js-client in Node, as in a browser."""

    FILES = 8

    def once(self):
        described = {
            "AGENT_CLIENT": self.agent.client,
            "AGENT_MANAGER": self.agent.manager,
            "AGENT_MANAGER_SECRET": self.agent.manager_secret,
            "AGENT_TOKEN_SECRET": self.agent.token_secret,
            "VFID": self.folder.vfid,
        }
        numbers = [self.done * self.FILES, self.FILES, 4, 3 * MIB, MIB]
        done = subprocess.run(
            ["node", NODE / "many_uploads.mjs", *map(str, numbers)], env={**os.environ, **described}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-500:]
        for line in map(json.loads, done.stdout.splitlines()):
            assert line["retries"] == 0, line
            assert sha256(self.folder.path / line["name"]) == line["digest"]
        self.folder.delete_files("js", recursive=True)


class Tus(Client):
    """aiotus, an independent client."""

    def once(self):
        data = os.urandom(4 * MIB + self.done % 1000)
        source = self.agent.folder / "aiotus-source"
        source.write_bytes(data)
        url = self.folder.upload_url("file", len(data))

        async def upload():
            async with aiohttp.ClientSession() as session:
                with source.open("rb") as stream:
                    await core.upload_buffer(session, yarl.URL(url), stream, chunksize=MIB)

        asyncio.run(upload())
        assert sha256(self.folder.path / "file") == sha256(data)


class Sdk(Client):
    """The client that Backend.AI's SDK and command line upload with."""

    def once(self):
        data = os.urandom(3 * MIB + self.done % 1000)
        source = self.agent.folder / "sdk-source"
        source.write_bytes(data)
        url = self.folder.upload_url("file", len(data))

        async def upload():
            with source.open("rb") as stream:
                uploader = TusClient().async_uploader(
                    file_stream=stream, url=yarl.URL(url), upload_checksum=False, chunk_size=16 * MIB, retries=0
                )
                uploader.offset = 0
                await uploader.upload()

        asyncio.run(upload())
        assert sha256(self.folder.path / "file") == sha256(data)


class Curl(Client):
    """Parts of a file, and its whole, by curl."""

    SIZE = 16 * MIB

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.data = os.urandom(self.SIZE)
        (self.folder.path / "file").write_bytes(self.data)

    def once(self):
        url = self.folder.download_url("file")
        first, last = sorted(int.from_bytes(os.urandom(3)) % self.SIZE for _ in range(2))
        for options, expected in (([], self.data), (["-r", f"{first}-{last}"], self.data[first : last + 1])):
            got = subprocess.run(["curl", "-sSf", *options, url], capture_output=True, check=True).stdout
            assert sha256(got) == sha256(expected)
        got = subprocess.run(["curl", "-sSf", self.folder.archive_url("file")], capture_output=True, check=True).stdout
        assert got.startswith(b"PK") and len(got) > self.SIZE


class Manager(Client):
    """Folders come and go, are listed, measured and cloned."""

    def once(self):
        folder = Folder(self.agent)
        folder.mkdir("a/b", "c")
        for number in range(20):
            (folder.path / "a" / f"{number}").write_bytes(bytes(number * 100))
        self.move(folder)
        assert set(folder.list()) == {"a", "c"}
        assert folder.usage()["file_count"] >= 20
        clone = folder.vfid[:-8] + f"{self.done:08x}"
        target = {"dst_volume": "local", "dst_vfid": clone}
        self.agent.call("POST", "/folder/clone", src_volume="local", src_vfid=folder.vfid, **target)
        folder.delete()
        self.agent.call("POST", "/folder/delete", volume="local", vfid=clone)
        self.agent.call("GET", "/quota-scope", volume="local", qsid=folder.scope)
        with urllib.request.urlopen(self.agent.manager + "/readyz", timeout=10) as reply:
            assert reply.status == 200

    def move(self, folder):
        self.agent.call("POST", "/folder/file/rename", volume="local", vfid=folder.vfid, relpath="a/1", new_name="one")
        self.agent.call("POST", "/folder/file/move", volume="local", vfid=folder.vfid, src_relpath="a/one", dst_relpath="c")


CLIENTS = [WebUi, Tus, Sdk, Curl, Manager, Manager]
