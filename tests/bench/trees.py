"""Trees of small files, warm: measured, copied and removed, beside du, cp, xcp and rm."""

import os
import random
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from harness.agent import UNPRIVILEGED, Agent
from harness.folder import Folder

from .measure import Row

PER_DIRECTORY = 100


def rows(plan):
    for name, place in plan.file_systems():
        with place as folder:
            yield from on(plan, name, folder)


def on(plan, fs, place):
    with Agent(place=place) as agent:
        folder = Folder(agent)
        tree = folder.path / "tree"
        populate(tree, plan.usage_files, [64])
        yield usage(plan, fs, folder)
        shutil.rmtree(tree)
    with Agent(place=place) as agent:
        folder = Folder(agent)
        populate(folder.path / "tree", plan.copy_files, sizes())
        copies = {"ours": [], "cp": [], "xcp": []}
        yield from copying(plan, fs, folder, copies)
        yield removing(plan, fs, folder, copies)


def sizes():
    """Small files of up to 16 KiB, the same at every run."""
    chance = random.Random(3)
    return [chance.randrange(16384) for _ in range(997)]


def populate(tree, count, lengths):
    content = os.urandom(max(lengths) + 1)
    for number in range(count):
        if number % PER_DIRECTORY == 0:
            folder = tree / f"{number // PER_DIRECTORY % 50:02}" / f"{number // PER_DIRECTORY}"
            folder.mkdir(parents=True)
        (folder / f"{number:07}").write_bytes(content[: lengths[number % len(lengths)]])
    own(tree)


def own(tree):
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", f"{UNPRIVILEGED}:{UNPRIVILEGED}", tree], check=True)
    settle(tree)


def settle(path):
    subprocess.run(["sync", "-f", path], check=True)


def timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def pairs(rounds, ours, other):
    """Wall times in turn, after one run of each to warm up."""
    ours(), other()
    times = ([], [])
    for number in range(rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            times[index].append((ours, other)[index]())
    return times


def usage(plan, fs, folder):
    def measured():
        if folder.usage()["file_count"] < plan.usage_files:
            raise RuntimeError("the agent did not count all files")

    ours, other = pairs(plan.rounds, lambda: timed(measured), lambda: timed(lambda: run("du", "-s", folder.path)))
    return Row("trees", f"usage of {plan.usage_files:,} files, {fs}", "du -s", "s", 0.65, ours=ours, other=other)


def copying(plan, fs, folder, copies):
    """Every copy gets a new place, and nothing is removed meanwhile: what was just freed makes ext4 slow.

    The agent makes a copy durable before it says that it is done, and the tools leave that to the kernel. So there are
    two times: until all is copied, and until the disk has it.
    """
    root = folder.path / "tree"

    def ours():
        target = Folder(folder.agent)
        # A clone wants a folder that does not exist.
        target.path.rmdir()
        copies["ours"].append(target.path / "tree")
        settle(root)
        return cloned(folder, target)

    def tool(name, *command):
        def copy():
            target = folder.agent.folder / f"{name}-{len(copies[name])}"
            copies[name].append(target)
            settle(root)
            return [timed(lambda: run(*identity(), *command, root, target)), timed(lambda: settle(root))]

        return copy

    others = {"cp -a --reflink=auto": tool("cp", "cp", "-a", "--reflink=auto")}
    if shutil.which("xcp"):
        others["xcp"] = tool("xcp", "xcp", "--recursive", "--no-progress", "--no-target-directory")
    what = f"copy of {plan.copy_files:,} files, {fs}"
    for name, other in others.items():
        mine, theirs = pairs(plan.rounds, ours, other)
        yield Row("trees", what, name, "s", 0.7,
                  ours=[copied for copied, _ in mine], other=[copied for copied, _ in theirs])
        yield Row("trees", f"{what}, made durable", f"{name}; sync -f", "s", 0.7,
                  ours=[sum(times) for times in mine], other=[sum(times) for times in theirs])


def identity():
    """Tools run as the agent does."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"]


def cloned(source, target):
    """Clones and waits: the time until all was copied, and the time from then on until the task was done."""
    agent = source.agent
    begin = time.perf_counter()
    # The reply to a clone comes late, the list of tasks at once.
    request = threading.Thread(target=lambda: clone(source, target))
    request.start()
    copied = None
    while True:
        tasks = [task for task in agent.call("GET", "/tasks")["tasks"] if task["target_vfid"] == target.vfid]
        now = time.perf_counter() - begin
        state, progress = (tasks[0]["state"], tasks[0]["progress"]) if tasks else ("queued", {})
        if copied is None and 0 < progress.get("entries_total", 0) <= progress["entries_done"]:
            copied = now
        if state == "done":
            request.join()
            return [copied, now - copied]
        if state not in ("queued", "running"):
            raise RuntimeError(f"the task ended as {state}")
        time.sleep(0.005)


def clone(source, target):
    source.agent.call("POST", "/folder/clone", src_volume="local", src_vfid=source.vfid, dst_volume="local",
                      dst_vfid=target.vfid)


def removing(plan, fs, folder, copies):
    """Removes what the copies left, to each side as many of each kind."""
    spare = {"ours": [], "other": []}
    for made in copies.values():
        for one, another in zip(made[::2], made[1::2]):
            spare["ours"].append(one)
            spare["other"].append(another)

    def ours():
        victim = folder.path / "victim"
        os.rename(spare["ours"].pop(), victim)
        settle(folder.path)
        return timed(lambda: folder.delete_files("victim", recursive=True))

    def other():
        victim = spare["other"].pop()
        settle(folder.path)
        return timed(lambda: run("rm", "-rf", victim))

    mine, theirs = pairs(min(plan.rounds, len(spare["ours"]) - 1), ours, other)
    bar = 1.0 if fs == "XFS" else 0.6
    return Row("trees", f"delete of {plan.copy_files:,} files, {fs}", "rm -rf", "s", bar, ours=mine, other=theirs)


@contextmanager
def image(fs, size, place):
    """A fresh file system in a file, mounted for the time of the block; needs root."""
    folder = Path(place) / f"bench-{fs}-{os.getpid()}"
    mount = folder / "mount"
    mount.mkdir(parents=True)
    file = folder / "image"
    with file.open("wb") as handle:
        handle.truncate(size)
    # All of ext4's tables at once: making them later would go on beside the measurements.
    options = {"ext4": ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "xfs": ["-q", "-f"]}[fs]
    run(f"mkfs.{fs}", *options, file)
    run("mount", "-o", "loop", file, mount)
    try:
        mount.chmod(0o777)
        yield mount
    finally:
        run("umount", mount)
        shutil.rmtree(folder)
