"""Several agents on one volume: uploads, deletions and clones go on whichever of them a request meets or dies."""

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import urllib3

from harness.agent import free_ports
from harness.folder import sha256
from harness.site import Balancer, Nginx, Site, patch, told_offset
from harness.valkey import wait_for

CLIENTS = Path(__file__).parents[1] / "clients/node"
LARGEST, CHUNK = 1 << 20, 192 << 10


class Killer:
    """Kills a random agent every second and starts it again."""

    def __init__(self, site, pause=0.5):
        self.site, self.pause = site, pause
        self.stopped = threading.Event()
        self.kills = 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def run(self):
        while not self.stopped.wait(self.pause):
            agent = random.choice(self.site.agents)
            agent.kill()
            self.kills += 1
            self.stopped.wait(0.5)
            agent.start()


def upload_many(site, balancer, vfid, count):
    """Half of the files with tus-js-client, half with aiotus; what the clients say of each."""
    environment = {
        **os.environ,
        "VFID": vfid,
        "AGENT_CLIENT": balancer.client,
        "AGENT_MANAGER": balancer.manager,
        "AGENT_MANAGER_SECRET": site.manager_secret,
        "AGENT_TOKEN_SECRET": site.token_secret,
    }
    arguments = ["0", str(count // 2), "8", str(LARGEST), str(CHUNK)]
    commands = [
        ["node", str(CLIENTS / "many_uploads.mjs"), *arguments],
        [sys.executable, str(Path(__file__).parent / "many_uploads.py"), *arguments],
    ]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda process: (*process.communicate(timeout=400), process.returncode), running))
    lines = []
    for output, errors, code in ended:
        assert code == 0, errors[-2000:]
        lines += [json.loads(line) for line in output.splitlines()]
    return lines


@pytest.mark.parametrize(("count", "leases"), [(1000, False), (300, True)], ids=["file-locks", "leases-too"])
def test_uploads_through_random_agents_that_are_being_killed_are_whole(events, count, leases):
    tables = events + ("leases = true\n" if leases else "")
    with Site(agents=3, tables=tables) as site, Balancer(site) as balancer:
        vfid = site.make_folder(files=0)
        began = time.monotonic()
        with Killer(site) as killer:
            uploaded = upload_many(site, balancer, vfid, count)
        took = time.monotonic() - began
        retries = sum(each["retries"] for each in uploaded)
        print(f"\n{len(uploaded)} uploads in {took:.0f} s, {killer.kills} agents killed, {retries} retries of the clients")
        assert len(uploaded) == count and killer.kills >= (3 if count >= 1000 else 1)
        wrong = [each["name"] for each in uploaded if sha256(site.place(vfid) / each["name"]) != each["digest"]]
        assert wrong == []


@pytest.mark.parametrize("leases", [False, True], ids=["file-locks", "leases-too"])
def test_of_two_patches_at_once_one_is_stored(events, leases):
    with Site(agents=2, tables=events + f"leases = {str(leases).lower()}\n[upload]\nholder-idle = 2\nlock-wait = 2\n") as site:
        vfid = site.make_folder(files=0)
        one, two = site.uploads(vfid, 40)
        go = threading.Event()

        def slow():
            yield b"a" * 10
            for _ in range(10):
                if go.wait(0.5):
                    break
                yield b"a"
            go.wait(30)

        with ThreadPoolExecutor() as pool:
            first = pool.submit(patch, one, 0, slow())
            wait_for(lambda: os.path.getsize(next((site.place(vfid) / ".upload").glob("?" * 32))) >= 10, 10, "the first bytes")
            # Its client goes on sending, so that it is not to be interrupted.
            second = patch(two, 10, b"b" * 30)
            assert second.status_code == 409, second.text
            # From here on it is silent, and the other may have the session.
            time.sleep(6)
            offset = told_offset(two)
            third = patch(two, offset, b"b" * (40 - offset))
            go.set()
            assert third.status_code == 204, third.text
            assert first.result().status_code in (400, 409)
        content = (site.place(vfid) / "file.bin").read_bytes()
        assert content == b"a" * offset + b"b" * (40 - offset)
        # All agents know that it is finished.
        for url in (one, two):
            assert told_offset(url) == 40


@pytest.mark.parametrize("leases", [False, True], ids=["file-locks", "leases-too"])
def test_the_work_of_an_agent_that_died_is_taken_over_and_told_once(valkey, events, leases):
    tables = events + f"leases = {str(leases).lower()}\n[limits]\ntasks-running = 1\n"
    with Site(agents=2, tables=tables) as site:
        one, two = site.agents
        scope = uuid.uuid4()
        vfids = [site.make_folder(scope, files=15) for _ in range(20)]
        source, target = site.make_folder(scope, files=300), f"user:{scope}/{uuid.uuid4().hex}"
        for vfid in vfids:
            site.delete(vfid, one)
        cloning = threading.Thread(
            target=lambda: pytest.raises(
                OSError, one.call, "POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target
            )
        )
        cloning.start()
        wait_for(lambda: list(site.volume.glob("*/.trash/*.clone")), 10, "the clone's claim")
        one.kill()
        died = time.monotonic()
        cloning.join()
        wait_for(lambda: len(valkey.entries()) >= 21 and not site.leftovers(), 70, site.leftovers)
        print(f"\nall was taken over and told {time.monotonic() - died:.1f} s after the death")
        time.sleep(2)
        told = sorted((event.name, event.vfid) for event in valkey.entries())
        expected = [("vfolder_deletion_success", vfid) for vfid in vfids] + [("vfolder_clone_success", source)]
        assert told == sorted(expected)
        assert sum(1 for path in site.place(target).rglob("*") if path.is_file()) == 300
        assert two.metric("events_pending") == 0


def test_a_clone_that_is_asked_for_again_at_another_agent_is_the_same_task(valkey, events):
    with Site(agents=3, tables=events) as site:
        scope = uuid.uuid4()
        source, target = site.make_folder(scope, files=1000), f"user:{scope}/{uuid.uuid4().hex}"

        def clone(agent):
            return agent.call("POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target)["bgtask_id"]

        with ThreadPoolExecutor() as pool:
            tasks = set(pool.map(clone, [*site.agents, *site.agents]))
        assert len(tasks) == 1
        wait_for(lambda: valkey.entries() and not site.leftovers(), 20, site.leftovers)
        assert [event.name for event in valkey.entries()] == ["vfolder_clone_success"]


def test_a_folder_is_purged_once_and_a_scope_made_once_whoever_is_asked(valkey, events):
    with Site(agents=3, tables=events) as site, ThreadPoolExecutor(12) as pool:
        scopes = [uuid.uuid4() for _ in range(10)]
        vfids = [(f"user:{scope}/{uuid.uuid4().hex}", agent) for scope in scopes for agent in site.agents]
        list(pool.map(lambda each: each[1].call("POST", "/folder/create", volume="local", vfid=each[0], options={}), vfids))
        assert sorted(path.name for path in site.volume.iterdir()) == sorted(scope.hex for scope in scopes)
        assert all(site.place(vfid).is_dir() for vfid, _ in vfids)
        deletions = [(vfid, agent) for vfid, _ in vfids for agent in site.agents]
        tasks = list(pool.map(lambda each: site.delete(*each), deletions))
        assert len(set(tasks)) == len(deletions)
        wait_for(lambda: len(valkey.entries()) == len(deletions) and not site.leftovers(), 30, site.leftovers)
        assert {event.name for event in valkey.entries()} == {"vfolder_deletion_success"}
        purges = [line for agent in site.agents for line in agent.log.read_text().splitlines() if "task failed" in line]
        assert purges == [] and not any(site.place(vfid).exists() for vfid, _ in vfids)


def test_the_sample_for_two_agents_serves_uploads_over_tls(events, tmp_path):
    sample = (Path(__file__).parents[2] / "packaging/examples/nginx-cluster.conf").read_text()
    certificate = ["-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "crt", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", "req", *certificate], cwd=tmp_path, check=True, capture_output=True)
    with Site(agents=2, tables=events) as site:
        client, manager = free_ports(2)
        for number, agent in ((11, site.agents[0]), (12, site.agents[1])):
            for index, port in ((0, 6021), (1, 6022)):
                sample = sample.replace(f"10.0.0.{number}:{port}", f"127.0.0.1:{agent.ports[index]}")
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{client} ssl"),
            ("listen 10.0.0.10:6022", f"listen 127.0.0.1:{manager}"),
            ("allow 10.0.0.0/24", "allow 127.0.0.0/8"),
            ("/etc/nginx/tls/storage.example.com.crt", f"{tmp_path}/crt"),
            ("/etc/nginx/tls/storage.example.com.key", f"{tmp_path}/key"),
            ("/var/log/nginx", str(tmp_path)),
        ):
            assert old in sample
            sample = sample.replace(old, new)
        with Nginx(tmp_path, sample, f"http://127.0.0.1:{manager}/status"):
            urllib3.disable_warnings()
            front = requests.Session()
            # The environment may name authorities, which would count more than this.
            front.verify = front.trust_env = False
            vfid, data = site.make_folder(files=0), os.urandom(3 << 20)
            request = {"volume": "local", "vfid": vfid, "relpath": "file.bin", "size": len(data)}
            headers = {"X-BackendAI-Storage-Auth-Token": site.manager_secret}
            url = f"http://127.0.0.1:{manager}/folder/file/upload"
            token = front.post(url, json=request, headers=headers).json()["token"]
            upload = f"https://127.0.0.1:{client}/upload?token={token}"
            for offset in range(0, len(data), 1 << 20):
                assert front.head(upload).headers["Upload-Offset"] == str(offset)
                headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
                assert front.patch(upload, data=data[offset : offset + (1 << 20)], headers=headers).status_code == 204
            assert (site.place(vfid) / "file.bin").read_bytes() == data
            assert all("POST" in log or "PATCH" in log for log in (agent.log.read_text() for agent in site.agents))
