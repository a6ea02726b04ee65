"""A site that the reference proxy served before: its projects are taken over as they are, of both generations."""

import os
import uuid

import pytest

from harness.agent import UNPRIVILEGED
from xfs.node import (
    CONFIG, FOREIGN_PROJECTS, FOREIGN_PROJID, MIB, PROJECTS, PROJID, STATE, VOLUME, Helper, Node, as_agent, ask, project,
    quota, run, tag,
)
from xfs.site import BareFolder, ScopedFolder, Upload
from xfs.wire import Project, folder, scope, u64

SCOPE, NAMED_OTHERWISE, FOLDER, UNTAGGED = (uuid.UUID(int=number << 96 | 0xABC) for number in (0x51, 0x52, 0x53, 0x54))


def bare_path(owner):
    return VOLUME / owner.hex[:2] / owner.hex[2:4] / owner.hex[4:]


PLACES = {501: VOLUME / SCOPE.hex, 502: VOLUME / NAMED_OTHERWISE.hex, 503: bare_path(FOLDER), 504: VOLUME / UNTAGGED.hex}
LINES = "".join(f"{number}:{path}\n" for number, path in PLACES.items())
NAMES = f"{SCOPE.hex}:501\nsomebody_renamed_it:502\n{FOLDER}:503\n{UNTAGGED.hex}:504\n"


@pytest.fixture(scope="module")
def site(traced):
    """A node with four such projects, each with a limit of 5 MiB, and directories that belong to the agent."""
    node = Node(traced, projects=LINES, projid=NAMES)
    for number, path in PLACES.items():
        path.mkdir(parents=True)
        for owned in (path, *path.parents):
            if owned == VOLUME:
                break
            os.chown(owned, UNPRIVILEGED, UNPRIVILEGED)
        if number != 504:
            tag(path, number, inherit=True)
        quota(f"limit -p bsoft=5m bhard=5m {number}")
    with node:
        yield node


def described(subject):
    return as_agent(lambda: ask("describe", "xfs", subject))


@pytest.mark.parametrize(
    "subject, number",
    [(scope(SCOPE), 501), (scope(NAMED_OTHERWISE), 502), (folder(FOLDER), 503), (scope(UNTAGGED), 504)],
    ids=["a scope", "a scope under another name", "a folder", "a scope without tag"],
)
def test_a_project_keeps_its_number_its_limit_and_its_lines(site, subject, number):
    before = site.canary()
    found = described(subject)
    assert isinstance(found, Project) and (found.id, found.limit) == (number, 5 * MIB), found
    again = as_agent(lambda: ask("create", "xfs", subject, u64(5 * MIB)))
    assert (again.id, again.created) == (number, False)
    assert site.canary() == before
    assert LINES in PROJECTS.read_text() and NAMES in PROJID.read_text()


def test_folders_go_on_in_an_adopted_scope(site):
    old = ScopedFolder(site.agent, owner=SCOPE)
    assert old.number == 501
    assert old.describe()[1] == 5 * MIB
    data = os.urandom(8 * MIB)
    upload = Upload(old, "file", len(data))
    assert upload.send(data)[0] == 507
    old.set_limit(20 * MIB)
    assert project(501)[1] == 20 * MIB
    assert upload.send(data)[0] == 204


def test_an_adopted_folder_gets_another_limit(site):
    site.agent.call("PATCH", "/volume/quota", volume="xfs", vfid=str(FOLDER), size_bytes=12 * MIB)
    assert project(503)[1] == 12 * MIB
    assert site.agent.call("GET", "/volume/quota", volume="xfs", vfid=str(FOLDER)) == 12 * MIB


def test_new_projects_come_from_the_configured_range(site):
    for made in (ScopedFolder(site.agent, MIB), BareFolder(site.agent, MIB)):
        assert 1000000 <= made.number < 2000000
    assert LINES in PROJECTS.read_text() and NAMES in PROJID.read_text()


def test_files_that_were_lost_are_made_anew_from_the_tags_and_no_number_twice(site):
    twin = VOLUME / uuid.UUID(int=(0x51 << 96) | 0xABD).hex
    twin.mkdir()
    tag(twin, 501, inherit=True)
    site.helper.stop()
    try:
        PROJECTS.write_text(FOREIGN_PROJECTS)
        PROJID.write_text(FOREIGN_PROJID)
        (STATE / "record").unlink()
        rebuild = (Helper.program(), "rebuild", "--config", str(CONFIG))
        shown = run(*rebuild, check=False)
        assert f"scope {twin.name} of xfs has project 501 of scope {SCOPE.hex} of xfs: left out" in shown
        assert PROJECTS.read_text() == FOREIGN_PROJECTS and PROJID.read_text() == FOREIGN_PROJID
        assert run(*rebuild, "--apply", check=False) == shown
    finally:
        twin.rmdir()
        site.helper.start()
    assert PROJECTS.read_text().startswith(FOREIGN_PROJECTS) and PROJID.read_text().startswith(FOREIGN_PROJID)
    lines = PROJECTS.read_text().splitlines()
    for number in (501, 502, 503):
        assert [line for line in lines if line.startswith(f"{number}:")] == [f"{number}:{PLACES[number]}"]
    assert twin.name not in PROJECTS.read_text()
    assert (described(folder(FOLDER)).id, described(folder(FOLDER)).limit) == (503, 12 * MIB)
