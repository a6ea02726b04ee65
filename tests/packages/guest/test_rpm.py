"""The RPM packages, in a root of their own: a small system that none of our files has ever been in."""

import os
from pathlib import Path

import pytest

from packages import listed
from packages.node import run

PACKAGES = Path(os.environ["PACKAGES"])
ROOT = Path("/rpm/root")
NAMES = ("storage-agent", "storage-agent-quota-helper")


def package(name):
    return next(PACKAGES.glob(f"{name}-[0-9]*.rpm"))


def rpm(*arguments):
    # Debian's rpm would rather not be used.
    return run("rpm", "--force-debian", "--root", ROOT, *arguments)


@pytest.fixture(scope="module")
def root():
    """The system's image again, with changes kept in memory."""
    device = next(word for word in Path("/proc/cmdline").read_text().split() if word.startswith("image=")).removeprefix("image=")
    for name in ("image", "memory", "root"):
        Path(f"/rpm/{name}").mkdir(parents=True)
    run("mount", "-t", "ext4", "-o", "ro,noload", device, "/rpm/image")
    run("mount", "-t", "tmpfs", "memory", "/rpm/memory")
    for name in ("changes", "work"):
        Path(f"/rpm/memory/{name}").mkdir()
    run("mount", "-t", "overlay", "-o", "lowerdir=/rpm/image,upperdir=/rpm/memory/changes,workdir=/rpm/memory/work", "rpm", ROOT)
    run("mount", "-t", "proc", "proc", ROOT / "proc")
    run("rpmdb", "--root", ROOT, "--initdb")
    # No RPM is on record there that would provide what ours require.
    done = rpm("-i", "--nodeps", *map(package, NAMES))
    assert "scriptlet failed" not in done.stderr and "error:" not in done.stderr, done.stderr
    return ROOT


def mode_in(root, path):
    """`mode owner:group path`, with the root's own names."""
    stat = (root / path.lstrip("/")).lstat()
    names = []
    for database, number in (("passwd", stat.st_uid), ("group", stat.st_gid)):
        lines = [line.split(":") for line in (root / "etc" / database).read_text().splitlines()]
        names.append(next((line[0] for line in lines if line[2] == str(number)), str(number)))
    return f"{stat.st_mode & 0o7777:04o} {names[0]}:{names[1]} {path}"


@pytest.mark.parametrize("name", NAMES)
def test_every_installed_file_has_the_listed_mode_and_owner(root, name):
    files = {*rpm("-ql", name).stdout.split(), *(line.split()[2] for line in listed("made", name))}
    assert {mode_in(root, path) for path in files} == listed("rpm", name) | listed("made", name)


def test_the_scriptlets_made_the_users(root):
    users = {line.split(":")[0]: line.split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    for name in NAMES:
        assert 0 < int(users[name][2]) < 1000 and users[name][6].endswith("nologin")


def test_packages_verify_and_say_what_they_need(root):
    assert rpm("-V", "--nodeps", *NAMES).stdout == ""
    needed = rpm("-q", "--requires", *NAMES).stdout
    assert "systemd" in needed and "xfsprogs" in needed and "libc.so.6" in needed


def test_a_site_keeps_its_changes_and_its_projects_when_packages_go(root):
    (root / "etc/projects").write_text("77:/vfroot/xfs/foreign\n")
    config = root / "etc/storage-agent/quota-helper.conf"
    config.write_text(config.read_text() + "volume xfs /vfroot/xfs\n")
    rpm("-e", *NAMES)
    assert not (root / "usr/bin/storage-agent").exists() and not (root / "usr/bin/quota-helper").exists()
    assert (root / "etc/projects").read_text() == "77:/vfroot/xfs/foreign\n"
    assert config.with_name(config.name + ".rpmsave").exists()
    assert (root / "etc/backend.ai/storage-proxy.toml").exists()
