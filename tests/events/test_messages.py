"""What is on the wire, read by the rules of both generations of managers."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.agent import free_ports
from harness.site import Site
from harness.valkey import Event, TaskMessage, Valkey, Watcher, wait_for


@pytest.fixture
def site(events):
    with Site(tables=events) as site:
        yield site


def only(valkey, vfid, seconds=15):
    """The one event of a vfolder, and that no second one follows."""

    def of():
        return [event for event in valkey.entries() if event.vfid == vfid]

    wait_for(of, seconds, f"an event of {vfid}")
    time.sleep(0.5)
    (event,) = of()
    assert event.old == event.new
    assert set(event.fields) == {"name", "source", "args", "payload"} and event.source == "storage"
    return event


def test_golden_bytes_read_the_same_by_both_rules():
    lines = (Path(__file__).parent / "golden.txt").read_text().splitlines()
    lines = [line.split() for line in lines if not line.startswith("#")]
    for kind, *rest in lines:
        parts = [bytes.fromhex(part) for part in rest[-2:]] if kind == "stream" else [bytes.fromhex(rest[0])]
        if kind == "stream":
            event = Event({b"name": rest[0].encode(), b"source": b"storage", b"args": parts[0], b"payload": parts[1]})
        else:
            event = TaskMessage(parts[0])
        assert event.old == event.new, rest[0]
    assert len(lines) == 12


def test_a_deletion_is_told_between_one_and_two_seconds_after_the_reply(site, valkey):
    vfid = site.make_folder()
    with Watcher(valkey) as watcher:
        task = site.delete(vfid)
        replied = time.monotonic()
        wait_for(lambda: valkey.client().xlen("events"), 10, "the event")
        took = time.monotonic() - replied
        assert 1.0 <= took <= 2.5, took
        event = only(valkey, vfid)
        cached = TaskMessage(valkey.client().get(f"bgtask.{task}"))
    assert (event.name, event.new) == ("vfolder_deletion_success", {"vfid": vfid})
    begun, *rest = watcher.of(task)
    assert begun.new == {"task_id": task, "current_progress": 0, "total_progress": 0, "message": "Task started"}
    (done,) = [message for message in rest if message.final]
    assert rest[-1] is done and done.name == "bgtask_done" and done.old == done.new
    assert done.new == {"task_id": task, "message": None} and cached.fields == done.fields
    assert 0 < valkey.client().ttl(f"bgtask.{task}") <= 300
    wait_for(lambda: not site.leftovers(), 5, site.leftovers)


def test_a_clone_is_told_with_both_folders(site, valkey):
    source = site.make_folder()
    target = f"{source.split('/')[0]}/{uuid.uuid4().hex}"
    reply = site.call("POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target, dst_volume=None)
    event = only(valkey, source)
    assert event.name == "vfolder_clone_success" and event.new == {"vfid": source, "dst_vfid": target}
    assert (site.place(target) / "d1" / "f1").read_bytes() == b"x" * 10
    cached = TaskMessage(valkey.client().get(f"bgtask.{reply['bgtask_id']}"))
    assert cached.name == "bgtask_done"


def test_deleting_what_is_not_there_ends_well_too(site, valkey):
    for vfid in (f"user:{uuid.uuid4()}/{uuid.uuid4().hex}", f"{site.make_folder().split('/')[0]}/{uuid.uuid4().hex}"):
        site.delete(vfid)
        assert only(valkey, vfid).name == "vfolder_deletion_success"
    unmanaged = f"user:{uuid.uuid4()}/{uuid.uuid4().hex}"
    site.agent.call("POST", "/folder/delete", volume="noop", vfid=unmanaged)
    assert only(valkey, unmanaged).name == "vfolder_deletion_success"
    wait_for(lambda: not site.leftovers(), 5, site.leftovers)


def test_folders_without_a_scope_are_told_as_they_were_named(site, valkey):
    for vfid in (uuid.uuid4().hex, str(uuid.uuid4())):
        site.call("POST", "/folder/create", vfid=vfid, options=None)
        site.call("POST", "/folder/delete", vfid=vfid)
        assert only(valkey, vfid).new == {"vfid": vfid}


def test_deleted_files_are_told_to_those_who_watch_alone(site, valkey):
    vfid = site.make_folder()
    reply = site.call("POST", "/folder/file/delete-async", vfid=vfid, relpaths=["d1"], recursive=True)
    key = f"bgtask.{reply['bgtask_id']}"
    wait_for(lambda: (text := valkey.client().get(key)) and TaskMessage(text).name == "bgtask_done", 10, key)
    assert valkey.entries() == []


def break_folder(site, vfid):
    """Makes a directory in which the agent can remove and read nothing."""
    sealed = site.place(vfid) / "sealed"
    (sealed / "inner").mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(sealed, 0, 0)
        os.chown(sealed / "inner", 0, 0)
        sealed.chmod(0o700)
    else:
        sealed.chmod(0)
    return sealed


def test_a_failed_deletion_is_told_once_and_tried_again_without_a_word(site, valkey):
    if os.getuid() != 0:
        pytest.skip("only root can make a directory that its owner cannot remove")
    vfid = site.make_folder()
    break_folder(site, vfid)
    task = site.delete(vfid)
    event = only(valkey, vfid)
    assert event.name == "vfolder_deletion_failure" and "sealed" in event.new["message"]
    assert TaskMessage(valkey.client().get(f"bgtask.{task}")).name == "bgtask_failed"
    wait_for(lambda: site.agent.metric("events_pending") == 0, 5, "an empty outbox")
    (sealed,) = site.volume.glob("*/.trash/*/sealed")
    os.chown(sealed, os.stat(site.volume).st_uid, -1)
    os.chown(sealed / "inner", os.stat(site.volume).st_uid, -1)
    site.agent.restart()
    wait_for(lambda: not site.leftovers(), 10, site.leftovers)
    time.sleep(2)
    only(valkey, vfid)


def test_a_failed_clone_is_told_with_its_reason(site, valkey):
    if os.getuid() != 0:
        pytest.skip("only root can make a directory that its owner cannot read")
    source = site.make_folder()
    break_folder(site, source)
    target = f"{source.split('/')[0]}/{uuid.uuid4().hex}"
    with pytest.raises(Exception, match="500"):
        site.call("POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target, dst_volume=None)
    event = only(valkey, source)
    assert event.name == "vfolder_clone_failure" and event.new["message"] and event.new["dst_vfid"] == target
    assert not site.place(target).exists()
    wait_for(lambda: not site.leftovers(), 5, site.leftovers)


def test_a_long_clone_shows_its_progress_at_a_bounded_rate(site, valkey):
    source = site.make_folder(files=2000)
    with (site.place(source) / "big").open("wb") as file:
        for _ in range(128):
            file.write(os.urandom(1 << 20))
    site.fill(source, 0)
    size = 128 * (1 << 20) + 2000 * 10
    target = f"{source.split('/')[0]}/{uuid.uuid4().hex}"
    with Watcher(valkey) as watcher:
        began = time.monotonic()
        reply = site.call("POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target, dst_volume=None)
        task = reply["bgtask_id"]
        wait_for(lambda: watcher.of(task) and watcher.of(task)[-1].final, 120, "the end")
        took = time.monotonic() - began
    updates = [message.new for message in watcher.of(task) if not message.final]
    print(f"\n{len(updates)} updates in {took:.1f} s: {[update['message'] for update in updates]}")
    assert len(updates) <= took / 2 + 2 and (took < 5 or len(updates) > 1)
    for update in updates[1:]:
        # Directories have sizes, too.
        assert update["total_progress"] >= size and update["current_progress"] <= update["total_progress"]


def test_without_a_server_there_is_one_warning_that_says_what_to_do():
    with Site() as site:
        vfid = site.make_folder()
        site.delete(vfid)
        wait_for(lambda: "task done" in site.agent.log.read_text(), 10, "the end")
        warnings = [line for line in site.agent.log.read_text().splitlines() if "[events]" in line]
        assert len(warnings) == 1 and vfid in warnings[0], warnings
        assert not site.leftovers()


def test_the_password_is_in_no_log(site, valkey):
    valkey.kill()
    site.delete(site.make_folder())
    wait_for(lambda: "events cannot be published" in site.agent.log.read_text(), 15, "the failure in the log")
    assert valkey.password not in site.agent.log.read_text()


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def test_tls_is_verified_against_the_given_authority(tmp_path):
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority")
    openssl(tmp_path, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=valkey")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "server.crt"]
    openssl(tmp_path, "x509", "-req", "-in", "server.csr", *signing)
    (port,) = free_ports(1)
    files = [f"tls-{kind}-file {tmp_path}/{name}" for kind, name in (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt"))]
    with Valkey(settings=[f"tls-port {port}", "tls-auth-clients no", *files]) as valkey, tempfile.TemporaryDirectory() as public:
        authority = Path(shutil.copy(tmp_path / "ca.crt", public))
        Path(public).chmod(0o755)
        table = f'[events]\nvalkey-addr = "127.0.0.1:{port}"\ntls = true\n'
        with Site(tables=table) as site:
            vfid = site.make_folder()
            site.delete(vfid)
            wait_for(lambda: "events cannot be published" in site.agent.log.read_text(), 15, "the refusal")
            assert "certificate" in site.agent.log.read_text().lower()
            site.agent.config.write_text(site.agent.config.read_text() + f'tls-ca-file = "{authority}"\n')
            site.agent.restart()
            assert only(valkey, vfid).name == "vfolder_deletion_success"


class Gateway(BaseHTTPRequestHandler):
    """The two calls of etcd's JSON gateway that matter, for one user."""

    keys = {}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v3/auth/authenticate":
            assert body == {"name": "storage", "password": "etcd-password"}
            reply = {"token": "a-token"}
        else:
            assert self.path == "/v3/kv/range" and self.headers["Authorization"] == "a-token"
            first, end = (base64.b64decode(body[key]).decode() for key in ("key", "range_end"))
            encoded = [[base64.b64encode(text.encode()).decode() for text in pair] for pair in self.keys.items() if first <= pair[0] < end]
            reply = {"kvs": [{"key": key, "value": value} for key, value in encoded]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_):
        pass


def test_the_server_is_found_through_the_sites_etcd(valkey):
    prefix = "/sorna/local/config/redis"
    Gateway.keys = {f"{prefix}/addr": f"127.0.0.1:{valkey.port}", f"{prefix}/password": valkey.password, "/sorna/local/other": "x"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        with Site(tables="[events]\nfrom-etcd = true\n") as site:
            config = site.agent.config
            address = f'port = {gateway.server_port} }}\nuser = "storage"\npassword = "etcd-password"'
            config.write_text(config.read_text().replace("port = 2379 }", address))
            site.agent.restart()
            vfid = site.make_folder()
            site.delete(vfid)
            assert only(valkey, vfid).name == "vfolder_deletion_success"
        gateway.shutdown()
