"""Uploads by tus: processor time per GiB, and memory with many sessions at once."""

import shutil
import threading

from harness.agent import Agent
from harness.folder import Folder

from .client import connect, read_head, request, send_body, source
from .measure import GIB, MIB, Row, figures, in_turn, reset_peak, sampled, status_mib
from .servers import Nginx, Rustus

PATCH = 16 * MIB
OCTETS = "application/offset+octet-stream"
SESSIONS = 200


def rows(plan):
    fd = source(PATCH)
    with Agent(place=plan.place) as agent:
        folder = Folder(agent)
        ours = lambda: sampled([agent.process.pid], lambda: ours_once(folder, plan, fd))
        with Nginx(plan.place, agent.volume, plan.certificate) as nginx:
            other = lambda: sampled(nginx.pids()[1:], lambda: nginx_once(nginx, plan, fd))
            mine, theirs = in_turn(plan.rounds, ours, other)
        yield cpu("nginx client_body_in_file_only", 0.75, mine, theirs)
        if shutil.which("rustus"):
            with Rustus(plan.place) as rustus:
                other = lambda: sampled([rustus.process.pid], lambda: rustus_once(rustus, plan, fd))
                mine, theirs = in_turn(plan.rounds, ours, other)
            yield cpu("rustus", 0.5, mine, theirs)
    yield from sessions(plan, fd)


def cpu(anchor, bar, ours, other):
    return Row("upload", "CPU per GiB, PATCHes of 16 MiB", anchor, "s/GiB", bar,
               ours=figures(ours, "cpu_per_unit"), other=figures(other, "cpu_per_unit"))


def ours_once(folder, plan, fd):
    url = folder.upload_url("up", plan.upload)
    patches(url, plan.upload, fd)
    (folder.path / "up").unlink()
    return plan.upload / GIB


def patches(url, size, fd):
    with connect(url) as sock:
        for offset in range(0, size, PATCH):
            head = request("PATCH", url, Upload_Offset=offset, Content_Type=OCTETS, Content_Length=PATCH)
            send_body(sock, head, fd, PATCH, 204)


def nginx_once(nginx, plan, fd):
    url = nginx.url + "/upload"
    with connect(url) as sock:
        for _ in range(0, plan.upload, PATCH):
            send_body(sock, request("POST", url, Content_Length=PATCH), fd, PATCH, 204)
    return plan.upload / GIB


def rustus_once(rustus, plan, fd):
    with connect(rustus.url) as sock:
        sock.sendall(request("POST", rustus.url, Upload_Length=plan.upload, Content_Length=0, Tus_Resumable="1.0.0"))
        status, headers, rest = read_head(sock)
        if status != 201:
            raise RuntimeError(f"rustus: status {status}: {rest!r}")
    url = headers["location"]
    with connect(url) as sock:
        for offset in range(0, plan.upload, PATCH):
            head = request("PATCH", url, Upload_Offset=offset, Content_Type=OCTETS, Content_Length=PATCH,
                           Tus_Resumable="1.0.0")
            send_body(sock, head, fd, PATCH, 204)
    for path in (rustus.folder / "data").rglob("*"):
        if path.is_file():
            path.unlink()
    return plan.upload / GIB


def sessions(plan, fd):
    """Peak memory while many clients upload at the same time."""
    with Agent(place=plan.place) as agent:
        folder = Folder(agent)
        peaks = []
        for number in range(plan.rounds):
            urls = [folder.upload_url(f"{number}-{session}", plan.session) for session in range(SESSIONS)]
            reset_peak([agent.process.pid])
            together([lambda url=url: patches_of(url, plan.session, fd) for url in urls])
            peaks.append(status_mib([agent.process.pid], "VmHWM"))
            for path in folder.path.iterdir():
                if path.is_file():
                    path.unlink()
    yield Row("upload", f"peak RSS, {SESSIONS} sessions of {plan.session // MIB} MiB at once", "", "MiB", 128, ours=peaks)


def patches_of(url, size, fd):
    """One PATCH, or several where the whole is longer than the source."""
    with connect(url) as sock:
        for offset in range(0, size, PATCH):
            length = min(PATCH, size - offset)
            head = request("PATCH", url, Upload_Offset=offset, Content_Type=OCTETS, Content_Length=length)
            send_body(sock, head, fd, length, 204)


def together(actions):
    failures = []

    def run(action):
        try:
            action()
        except Exception as failure:  # noqa: BLE001 - told by the thread that waits
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
