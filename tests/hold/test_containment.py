"""One process swaps directories for links that lead out, as fast as it can, while every route is driven through them."""

import io
import json
import os
import random
import subprocess
import threading
import time
import uuid
import zipfile
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

from harness.agent import UNPRIVILEGED
from harness.folder import Folder
from hold.guarded import LONG, Guarded, table
from hold.http import request
from hold.watch import Canary

SECONDS = 600 if LONG else 60
RACERS, CLIENTS = 2, 3
DOCUMENTS = Path(__file__).resolve().parents[2] / "agent" / "openapi"
# Operations that a plain directory cannot do, whatever its state.
UNSUPPORTED = {
    ("GET", "/volume/performance-metric"), ("GET", "/volume/quota"), ("PATCH", "/volume/quota"), ("POST", "/folder/metadata"),
}  # fmt: skip
DIRECTORIES = ["swap", "swap/inner", "swap/inner/deep"]
FILES = [f"{directory}/{name}" for directory in DIRECTORIES for name in ("file", "other")] + ["file", "other"]


def routes():
    """Every operation of both APIs, from their own descriptions."""
    found = set()
    for api in ("client", "manager"):
        document = json.loads((DOCUMENTS / f"{api}.json").read_text())
        found |= {(method.upper(), f"{path} ({api})") for path, methods in document["paths"].items() for method in methods}
    return found


class Driver:
    """One client and manager that uses all routes in random order, on paths that change under it."""

    def __init__(self, agent, folder, canary, seed):
        self.agent, self.folder, self.canary = agent, folder, canary
        self.random = random.Random(seed)
        self.answered, self.succeeded, self.shown = Counter(), Counter(), []
        self.error = None
        self.auth = {"X-BackendAI-Storage-Auth-Token": agent.manager_secret, "Content-Type": "application/json"}
        self.thread = threading.Thread(target=self.run)

    def run(self):
        deadline = time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline:
                for step in self.random.sample(STEPS, len(STEPS)):
                    step(self)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.error = error
            raise

    def file(self):
        return self.random.choice(FILES)

    def directory(self):
        return self.random.choice(DIRECTORIES)

    def send(self, api, method, path, body=None, query="", name=None, **headers):
        """One request, counted for its route; its status and body."""
        base = self.agent.manager if api == "manager" else self.agent.client
        target = f"{base}{path}?{query}" if query else base + path
        status, reply_headers, data = request(method, target, body, headers)
        route = (method, f"{name or path} ({api})")
        self.answered[route] += 1
        self.succeeded[route] += status < 300
        if self.canary.shows(data) or self.canary.shows(str(reply_headers).encode()):
            self.shown.append(f"{method} {path}: {data[:200]!r}")
        # A clone whose source never holds still may fail, and says at which entry.
        failed = status == 500 and path == "/folder/clone" and b"Storage Proxy Error" in data
        assert status < 500 or status == 503 or failed, f"{method} {path} {body!r:.200}: {status} {data[:500]!r}"
        return status, data

    def manager(self, method, path, name=None, **parameters):
        body = json.dumps(parameters) if parameters else None
        return self.send("manager", method, path, body, name=name, **self.auth)

    def here(self, method, path, **parameters):
        return self.manager(method, path, volume="local", vfid=self.folder.vfid, **parameters)

    def token(self, path, **parameters):
        status, data = self.here("POST", path, **parameters)
        return json.loads(data)["token"] if status == 200 else None

    def status_routes(self):
        for path in ("/", "/status", "/health", "/livez", "/readyz", "/openapi.json"):
            self.send("manager", "GET", path)
        self.manager("GET", "/volumes")
        self.manager("GET", "/overview")
        for path in ("/", "/openapi.json"):
            self.send("client", "GET", path)
        self.send("client", "OPTIONS", "/upload")

    def volume_routes(self):
        for path in ("/volume/hwinfo", "/volume/performance-metric", "/folder/fs-usage"):
            self.manager("GET", path, volume="local")
        self.here("GET", "/volume/quota")
        self.here("PATCH", "/volume/quota", size_bytes=1 << 30)

    def scopes(self):
        scope = {"volume": "local", "qsid": f"user:{uuid.uuid4()}"}
        self.manager("POST", "/quota-scope", **scope)
        self.manager("GET", "/quota-scope", **scope)
        self.manager("PATCH", "/quota-scope", **scope, options={"limit_bytes": 1 << 30})
        self.manager("DELETE", "/quota-scope/quota", **scope)
        self.manager("DELETE", "/quota-scope", **scope)

    def vfolders(self):
        self.here("GET", "/folder/mount", subpath=self.directory())
        self.here("GET", "/folder/metadata")
        self.here("POST", "/folder/metadata", payload="x")
        self.here("GET", "/folder/usage")
        self.here("GET", "/folder/used-bytes")

    def clone_and_delete(self):
        """A copy of the swapped folder must not have what the links lead to; deleting it must not either."""
        clone = f"user:{uuid.uuid4()}/{uuid.uuid4().hex}"
        self.manager("POST", "/folder/create", volume="local", vfid=clone, options=None)
        target = {"dst_volume": "local", "dst_vfid": clone}
        status, _ = self.manager("POST", "/folder/clone", src_volume="local", src_vfid=self.folder.vfid, **target)
        if status == 200:
            scope, name = clone.removeprefix("user:").replace("-", "").split("/")
            self.search(self.agent.volume / scope / name[:2] / name[2:4] / name[4:])
        status, data = self.manager("POST", "/folder/delete", volume="local", vfid=clone)
        task = json.loads(data)["bgtask_id"]
        self.manager("GET", f"/tasks/{task}", name="/tasks/{id}")
        self.manager("DELETE", f"/tasks/{task}", name="/tasks/{id}")
        self.manager("GET", "/tasks")

    def search(self, folder):
        for root, directories, files in os.walk(folder):
            for name in directories + files:
                path = os.path.join(root, name)
                content = b""
                if os.path.isfile(path) and not os.path.islink(path):
                    content = Path(path).read_bytes()
                if self.canary.shows(content + name.encode()):
                    self.shown.append(f"clone: {path}")

    def listing(self):
        self.here("POST", "/folder/file/list", relpath=self.directory())
        self.here("POST", "/folder/file/list", relpath="")
        self.here("POST", "/folder/file/fetch", relpath=self.file())

    def changes(self):
        made = f"{self.directory()}/made-{self.random.randrange(8)}"
        self.here("POST", "/folder/file/mkdir", relpath=[made, f"{self.directory()}/x/y"], parents=True, exist_ok=True)
        self.here("POST", "/folder/file/rename", relpath=made, new_name=f"named-{self.random.randrange(8)}")
        self.here("POST", "/folder/file/move", src_relpath=self.file(), dst_relpath=self.directory())
        self.here("POST", "/folder/file/move", src_relpath=self.directory(), dst_relpath=self.directory())

    def deletions(self):
        """The victims' folders outside have the same names."""
        names = [self.file(), self.directory(), f"{self.directory()}/secret"]
        self.here("POST", "/folder/file/delete", relpaths=[self.random.choice(names)], recursive=True)
        self.here("POST", "/folder/file/delete-async", relpaths=names, recursive=True)

    def uploads(self):
        data = self.random.randbytes(self.random.randrange(1, 8192))
        token = self.token("/folder/file/upload", relpath=f"{self.directory()}/{self.random.choice(['file', 'secret', 'new'])}", size=len(data))
        if not token:
            return
        query = urlencode({"token": token})
        tus = {"Tus-Resumable": "1.0.0"}
        half, kind = len(data) // 2, {"Content-Type": "application/offset+octet-stream", **tus}
        self.send("client", "PATCH", "/upload", data[:half], query, **{**kind, "Upload-Offset": "0"})
        self.send("client", "HEAD", "/upload", None, query, **tus)
        if self.random.random() < 0.3:
            self.send("client", "DELETE", "/upload", None, query, **tus)
        else:
            self.send("client", "PATCH", "/upload", data[half:], query, **{**kind, "Upload-Offset": str(half)})

    def downloads(self):
        for _ in range(3):
            if token := self.token("/folder/file/download", relpath=self.file()):
                self.send("client", "GET", "/download", None, urlencode({"token": token}))
                self.send("client", "HEAD", "/download", None, urlencode({"token": token}))
        if token := self.token("/folder/file/download", relpath=self.directory(), archive=True):
            self.unzip(*self.send("client", "GET", "/download", None, urlencode({"token": token, "archive": "true"})))

    def archives(self):
        for path in ("/folder/file/archive-download-token", "/folder/file/download-archive"):
            files = [self.file(), self.directory(), "."]
            parameters = {"volume": "local", "virtual_folder_id": self.folder.vfid, "files": files}
            status, data = self.manager("POST", path, **parameters)
            if status == 200:
                query = urlencode({"token": json.loads(data)["token"]})
                self.unzip(*self.send("client", "GET", "/download-archive", None, query))

    def unzip(self, status, data):
        """What is in an archive must not show it either. One whose files vanished on the way may be cut off."""
        if status != 200 or not zipfile.is_zipfile(io.BytesIO(data)):
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if self.canary.shows(entry.filename.encode() + archive.read(entry)):
                    self.shown.append(f"archive: {entry.filename}")


STEPS = [
    Driver.status_routes, Driver.volume_routes, Driver.scopes, Driver.vfolders, Driver.clone_and_delete, Driver.listing,
    Driver.changes, Driver.deletions, Driver.uploads, Driver.downloads, Driver.archives,
]  # fmt: skip


def build(folder):
    program = folder / "racer"
    source = Path(__file__).with_name("racer.c")
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    program.chmod(0o755)
    return program


def race(program, folder, canary, seed):
    """Runs as another user of the folder, who cannot reach the canary: whatever happens to that, the agent did."""
    stranger = str(UNPRIVILEGED + 1)
    command = ["setpriv", "--reuid", stranger, "--regid", stranger, "--clear-groups"]
    command += [program, folder.path, canary.folder, str(SECONDS + 2), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_route_leads_out_of_a_folder_that_changes_under_it(capsys):
    with Guarded(tables="[limits]\nuploads-per-vfolder = 1000000\n") as agent:
        agent.folder.chmod(0o755)
        canary = Canary(agent.folder)
        folder = Folder(agent)
        folder.path.chmod(0o777)
        program = build(agent.folder)
        racers = [race(program, folder, canary, seed) for seed in range(RACERS)]
        drivers = [Driver(agent, folder, canary, seed) for seed in range(CLIENTS)]
        for driver in drivers:
            driver.thread.start()
        for driver in drivers:
            driver.thread.join()
        # The folder itself goes while the last racer is at work in it.
        drivers[0].here("POST", "/folder/delete")
        changes = sum(int(racer.communicate()[0]) for racer in racers)
        assert agent.stop() is not None
        touched = canary.touches()
    answered, succeeded = (sum((getattr(each, name) for each in drivers), Counter()) for name in ("answered", "succeeded"))
    shown = [line for driver in drivers for line in driver.shown]
    with capsys.disabled():
        print()
        table(seconds=SECONDS, changes=f"{changes:,}", requests=f"{answered.total():,}", escapes=len(shown) + len(touched))
        for route in sorted(answered):
            print(f"    {route[0]:7} {route[1]:48} {answered[route]:7} answered {succeeded[route]:7} with success")
    assert shown == [] and touched == []
    assert [driver.error for driver in drivers] == [None] * CLIENTS
    assert changes > SECONDS * 1000
    expected = routes()
    assert set(answered) == expected, set(answered) ^ expected
    unsupported = {(method, f"{path} (manager)") for method, path in UNSUPPORTED}
    assert {route for route in expected if not succeeded[route]} <= unsupported


def test_the_canary_sees_a_touch(tmp_path):
    """What the test above rests on."""
    tmp_path.chmod(0o755)
    canary = Canary(tmp_path)
    (canary.folder / "swap" / "file").read_bytes()
    (canary.folder / "inner" / "new").touch()
    touched = "\n".join(canary.touches())
    assert "swap/file: opened" in touched and "inner/new: created in" in touched
