"""The Debian packages on a booted node with a real XFS volume: one story, in order, from installing to purging."""

import http.client
import os
import secrets
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from harness.folder import sha256
from packages import listed
from packages.node import (
    AGENT, AGENT_SOCKET, CAP_SYS_ADMIN, CONFIG, CREDENTIALS, EXAMPLES, HELPER, HELPER_CONFIG, HELPER_EXAMPLES, HELPER_SOCKET,
    InstalledAgent, capabilities, drop_in, eventually, is_active, journal, kernel_has_landlock, limits, mode_of, newer, pid,
    process_status, run, shown, systemctl,
)
from xfs.node import PROJECTS, PROJID, VOLUME, project, quota, tagged
from xfs.site import ScopedFolder, Upload

MIB = 1 << 20
PACKAGES = Path(os.environ["PACKAGES"])
SITE = 1100
FOREIGN = {PROJECTS: f"# by hand\n77:{VOLUME}/foreign\n", PROJID: "# by hand\nforeign:77\n"}


def package(name):
    return next(PACKAGES.glob(f"{name}_*_amd64.deb"))


@pytest.fixture(scope="module")
def agent():
    return InstalledAgent(secrets.token_hex(32), secrets.token_hex(32))


@pytest.fixture(scope="module")
def story():
    """What later tests need of earlier ones."""
    return {}


def test_before_anything_the_node_has_projects_of_others():
    for path, text in FOREIGN.items():
        path.write_text(text)
    (VOLUME / "foreign").mkdir()
    (VOLUME / "foreign/kept").write_bytes(b"kept" * 5000)
    quota(f"project -s -p {VOLUME}/foreign 77")
    quota("limit -p bsoft=0 bhard=5m 77")


def test_dpkg_installs_both_packages_and_starts_nothing_that_is_not_configured():
    run("dpkg", "-i", package("storage-agent"), package("storage-agent-quota-helper"))
    for unit in (AGENT, AGENT_SOCKET, HELPER, HELPER_SOCKET):
        assert not is_active(unit)
        assert systemctl("is-enabled", unit, check=False) in ("disabled", "indirect")
    told = run("systemd-analyze", "verify", "--man=no", AGENT, AGENT_SOCKET, HELPER, HELPER_SOCKET)
    assert (told.stdout, told.stderr) == ("", "")


@pytest.mark.parametrize("name", ["storage-agent", "storage-agent-quota-helper"])
def test_every_installed_file_has_the_listed_mode_and_owner(name):
    files = [line for line in run("dpkg", "-L", name).stdout.splitlines() if not Path(line).is_dir()]
    made = {line.split()[2] for line in listed("made", name)}
    assert {mode_of(path) for path in {*files, *made}} == listed("deb", name) | listed("made", name)


def test_nothing_is_set_id_and_nothing_has_capabilities():
    found = run("find", "/usr/bin/storage-agent", "/usr/bin/quota-helper", "/etc/storage-agent", "/etc/backend.ai",
                "/run/storage-agent", "-perm", "/6002", "-not", "-type", "l").stdout
    assert found == ""
    for program in ("/usr/bin/storage-agent", "/usr/bin/quota-helper"):
        assert "security.capability" not in os.listxattr(program)


def test_an_untouched_configuration_lacks_the_secrets_alone_and_does_not_start():
    check = run("storage-agent", "check", check=False)
    problems = [line for line in check.stdout.splitlines() if line.startswith("FAIL")]
    assert len(problems) == 2 and all(".secret" in line for line in problems), check.stdout
    systemctl("start", AGENT, check=False)
    assert not is_active(AGENT)
    assert "openssl rand" in journal(AGENT) or "secret" in journal(AGENT)
    systemctl("stop", AGENT)


def test_the_operator_configures_and_starts_it(agent):
    for name, secret in (("storage-proxy.secret", agent.token_secret), ("api.manager.secret", agent.manager_secret)):
        (CREDENTIALS / name).write_text(secret)
        (CREDENTIALS / name).chmod(0o600)
    drop_in(AGENT, EXAMPLES / "credentials.conf")
    text = CONFIG.read_text().replace('backend = "vfs"', 'backend = "xfs"').replace("[volume.local]", "[volume.xfs]")
    text = text.replace("/vfroot/local", str(VOLUME))
    CONFIG.write_text(text + '[logging]\ndrivers = ["console", "file"]\n'
                             '[logging.file]\npath = "/var/log/storage-agent"\nfilename = "agent.log"\nrotation-size = "1t"\n'
                             '[agent]\nshutdown-timeout = "1s"\n')
    HELPER_CONFIG.write_text(HELPER_CONFIG.read_text() + f"volume xfs {VOLUME}\n")
    os.chown(VOLUME, *(int(run("id", option, "storage-agent").stdout) for option in ("-u", "-g")))
    systemctl("enable", "--now", HELPER_SOCKET, AGENT)
    assert eventually(agent.is_ready), journal(AGENT)
    assert mode_of(CONFIG) == f"0640 root:storage-agent {CONFIG}"
    assert mode_of("/run/storage-agent/quota-helper.sock").startswith("0660 root:storage-agent")


def test_quotas_hold_from_creation_to_deletion(agent):
    folder = ScopedFolder(agent, limit=4 * MIB)
    assert folder.describe()[1] == 4 * MIB
    data = os.urandom(6 * MIB)
    upload = Upload(folder, "big", len(data))
    status, _, _ = upload.send(data)
    assert status == 507
    assert upload.offset() <= 4 * MIB and project(folder.number)[0] <= 4 * MIB
    folder.set_limit(16 * MIB)
    status, _, _ = upload.send(data)
    assert status == 204
    assert sha256(download(folder, "big")) == sha256(data)
    folder.remove_project()
    assert folder.lines() == ([], [])


def test_the_agent_is_nobody_special():
    status = process_status(pid(AGENT))
    user = run("id", "-u", "storage-agent").stdout.strip()
    assert set(status["Uid"].split()) == {user} and user != "0"
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert not any(capabilities(pid(AGENT)).values())
    # The kernel gives the files in there to root once a process may not be dumped (proc_pid(5)).
    assert Path(f"/proc/{pid(AGENT)}/environ").stat().st_uid == 0
    assert limits(pid(AGENT))["Max core file size"] == "0"


def test_under_the_unit_the_agent_has_its_own_sandbox_and_the_kernel_contains_paths(agent):
    sandbox = agent.call("GET", "/status")["sandbox"]
    assert (sandbox["openat2"], sandbox["seccomp"]) == ("on", "on")
    # User-mode Linux may lack it; then nothing but that may be the reason.
    assert sandbox["landlock"] == ("on" if kernel_has_landlock() else "unsupported")
    assert "openat2" not in journal(AGENT)


def test_the_helper_is_root_with_one_capability():
    status, sets = process_status(pid(HELPER)), capabilities(pid(HELPER))
    assert set(status["Uid"].split()) == {"0"}
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert sets["CapPrm"] == sets["CapEff"] == sets["CapBnd"] == CAP_SYS_ADMIN
    assert sets["CapInh"] | sets["CapAmb"] | CAP_SYS_ADMIN == CAP_SYS_ADMIN
    allowed = limits(pid(HELPER))
    assert (allowed["Max open files"], allowed["Max processes"], allowed["Max core file size"]) == ("64", "4", "0")
    assert (shown(HELPER, "MemoryMax"), shown(HELPER, "TasksMax")) == (str(32 * MIB), "8")


def test_secrets_are_in_no_environment_and_no_command_line(agent):
    for unit in (AGENT, HELPER):
        for name in ("environ", "cmdline"):
            content = Path(f"/proc/{pid(unit)}/{name}").read_bytes()
            assert agent.token_secret.encode() not in content and agent.manager_secret.encode() not in content


def test_the_sandbox_has_the_host_read_only(agent):
    """As the processes see it: their mount tables."""
    for unit, writable in ((AGENT, ["/vfroot", "/var/log/storage-agent"]), (HELPER, ["/etc/projects", "/etc/projid"])):
        mounts = Path(f"/proc/{pid(unit)}/mounts").read_text().splitlines()
        options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
        assert "ro" in options["/"], unit
        for path in writable:
            holder = max((mount for mount in options if Path(path).is_relative_to(mount)), key=len)
            assert "rw" in options[holder], (unit, path)


def test_a_reload_goes_on_in_a_new_log_file(agent):
    before = pid(AGENT)
    log = Path("/var/log/storage-agent/agent.log")
    assert log.stat().st_size
    run("logrotate", "--force", "/etc/logrotate.d/storage-agent")
    assert eventually(lambda: "reloaded" in log.read_text()), list(log.parent.iterdir())
    assert len(list(log.parent.glob("agent.log-*"))) == 1
    systemctl("reload", AGENT)
    assert pid(AGENT) == before and agent.is_ready()


def test_an_agent_that_hangs_is_started_anew(agent):
    limit = Path(f"/run/systemd/system/{AGENT}.d/watchdog.conf")
    limit.parent.mkdir(parents=True, exist_ok=True)
    limit.write_text("[Service]\nWatchdogSec=3s\n")
    systemctl("daemon-reload")
    systemctl("restart", AGENT)
    hung = pid(AGENT)
    os.kill(hung, 19)
    assert eventually(lambda: pid(AGENT) not in (0, hung) and agent.is_ready()), journal(AGENT)
    limit.unlink()
    systemctl("daemon-reload")


class Sending(threading.Thread):
    """A PATCH that is still going on when the agent is upgraded: 2 MiB at once, then ever a little more until it is broken off."""

    def __init__(self, upload, offset, data):
        super().__init__(daemon=True)
        self.upload, self.offset, self.data = upload, offset, data
        self.sent, self.broken = 0, False

    def run(self):
        connection = http.client.HTTPConnection(self.upload.url.hostname, self.upload.url.port, timeout=120)
        connection.putrequest("PATCH", f"{self.upload.url.path}?{self.upload.url.query}")
        for header in (("Upload-Offset", str(self.offset)), ("Content-Type", "application/offset+octet-stream"),
                       ("Tus-Resumable", "1.0.0"), ("Content-Length", str(len(self.data)))):
            connection.putheader(*header)
        try:
            connection.endheaders(self.data[: 2 * MIB])
            for self.sent in range(2 * MIB, len(self.data), 1024):
                connection.send(self.data[self.sent : self.sent + 1024])
                time.sleep(0.1)
        except OSError:
            self.broken = True


def test_an_upgrade_in_the_middle_of_an_upload_lets_it_go_on(agent, tmp_path):
    folder = ScopedFolder(agent, limit=32 * MIB)
    data = os.urandom(16 * MIB)
    upload = Upload(folder, "upgraded", len(data))
    assert upload.patch(0, data[: 3 * MIB])[0] == 204
    sending = Sending(upload, 3 * MIB, data[3 * MIB :])
    sending.start()
    assert eventually(lambda: sending.sent)
    before, helper = pid(AGENT), pid(HELPER)
    run("dpkg", "-i", newer(package("storage-agent"), tmp_path), newer(package("storage-agent-quota-helper"), tmp_path))
    assert eventually(agent.is_ready)
    assert pid(AGENT) != before and pid(HELPER) != helper
    sending.join(60)
    assert sending.broken
    # All that arrived was kept: the first 2 MiB of the broken request at least.
    assert 5 * MIB <= upload.offset() < len(data)
    assert upload.send(data)[0] == 204
    assert sha256(download(folder, "upgraded")) == sha256(data)
    assert folder.describe()[1] == 32 * MIB
    folder.remove_project()


def test_with_its_socket_the_agent_refuses_nobody_while_it_restarts(agent):
    # In the order that the unit's comment gives.
    systemctl("stop", AGENT)
    systemctl("enable", "--now", AGENT_SOCKET)
    systemctl("start", AGENT)
    restarting = threading.Thread(target=systemctl, args=("restart", AGENT))
    before, answers = pid(AGENT), 0
    restarting.start()
    while restarting.is_alive() or not answers:
        with urllib.request.urlopen(agent.manager + "/livez", timeout=60) as reply:
            assert reply.status == 200
        answers += 1
    assert pid(AGENT) not in (0, before)
    checked = run("storage-agent", "check", env={**os.environ, "CREDENTIALS_DIRECTORY": str(CREDENTIALS)}).stdout
    assert checked.count("is held by systemd") == 2, checked


def test_the_helper_works_as_a_user_of_its_own(agent):
    drop_in(HELPER, HELPER_EXAMPLES / "own-user.conf")
    systemctl("stop", HELPER)
    folder = ScopedFolder(agent, limit=4 * MIB)
    assert folder.describe()[1] == 4 * MIB
    status, sets = process_status(pid(HELPER)), capabilities(pid(HELPER))
    own = run("id", "-u", "storage-agent-quota-helper").stdout.strip()
    assert set(status["Uid"].split()) == {own} and own != "0"
    assert sets["CapPrm"] == sets["CapEff"] == sets["CapBnd"] == CAP_SYS_ADMIN
    assert Upload(folder, "big", 5 * MIB).send(bytes(5 * MIB))[0] == 507
    folder.remove_project()
    assert folder.lines() == ([], [])


def test_the_agent_runs_as_the_uid_that_owns_an_existing_sites_folders(agent):
    """The site of the reference proxy: folders of uid 1100, its configuration; then the drop-in that migrate-check asks for."""
    old = VOLUME / "0123456789abcdef0123456789abcdef/01/23/456789abcdef0123456789abcdef"
    old.mkdir(parents=True)
    (old / "data").write_text("theirs")
    run("chown", "-R", f"{SITE}:{SITE}", VOLUME / "0123456789abcdef0123456789abcdef")
    os.chown(VOLUME, SITE, SITE)
    told = run("storage-agent", "migrate-check", env={**os.environ, "CREDENTIALS_DIRECTORY": str(CREDENTIALS)}).stdout
    assert f"User={SITE}, Group={SITE}, SupplementaryGroups=storage-agent" in told, told
    run("groupadd", "--gid", SITE, "backendai")
    run("useradd", "--uid", SITE, "--gid", SITE, "--no-create-home", "--shell", "/usr/sbin/nologin", "backendai")
    drop_in(AGENT, EXAMPLES / "site.conf", ("User=1100", f"User={SITE}"))
    HELPER_CONFIG.write_text(HELPER_CONFIG.read_text().replace("storage-agent\n", f"{SITE}\n", 1))
    systemctl("stop", HELPER)
    systemctl("restart", AGENT)
    assert eventually(agent.is_ready), journal(AGENT)
    assert set(process_status(pid(AGENT))["Uid"].split()) == {str(SITE)}
    folder = ScopedFolder(agent, limit=4 * MIB)
    assert Upload(folder, "small", 5).send(b"hello")[0] == 204
    assert Upload(folder, "big", 5 * MIB).send(bytes(5 * MIB))[0] == 507
    assert (folder.path / "small").stat().st_uid == SITE
    theirs = {"volume": "xfs", "vfid": "user:01234567-89ab-cdef-0123-456789abcdef/0123456789abcdef0123456789abcdef"}
    names = [item["name"] for item in agent.call("POST", "/folder/file/list", relpath="", **theirs)["items"]]
    assert names == ["data"]
    by_hand = {**os.environ, "CREDENTIALS_DIRECTORY": str(CREDENTIALS)}
    checked = run("storage-agent", "check", env=by_hand).stdout
    assert f"as uid {SITE}, gid {SITE}, the owner of the first volume" in checked and "the quota helper 0." in checked, checked
    audited = run("storage-agent", "quota", "audit", env=by_hand, check=False).stdout
    assert f"scope {old.parents[2].name}: belongs to no project" in audited and "1 problem(s)" in audited, audited
    folder.remove_project()


def test_a_site_without_xfs_may_hide_all_other_users(agent):
    drop_in(AGENT, EXAMPLES / "no-xfs.conf")
    local = Path("/vfroot/local")
    local.mkdir()
    os.chown(local, SITE, SITE)
    before = CONFIG.read_text()
    CONFIG.write_text(before.replace("[volume.xfs]", "[volume.local]").replace('"xfs"', '"vfs"').replace(str(VOLUME), str(local)))
    systemctl("restart", AGENT)
    assert eventually(agent.is_ready), journal(AGENT)
    assert os.readlink(f"/proc/{pid(AGENT)}/ns/user") != os.readlink("/proc/1/ns/user")
    folder = ScopedFolder(agent, volume="local")
    assert Upload(folder, "file", 5).send(b"hello")[0] == 204
    assert download(folder, "file") == b"hello" and (folder.path / "file").stat().st_uid == SITE
    CONFIG.write_text(before)
    (Path("/etc/systemd/system") / f"{AGENT}.d/no-xfs.conf").unlink()
    systemctl("daemon-reload")
    systemctl("restart", AGENT)


def test_removal_ends_both_and_leaves_what_is_the_sites(agent, story):
    assert eventually(agent.is_ready)
    folder = ScopedFolder(agent, limit=4 * MIB)
    assert Upload(folder, "kept", 5).send(b"hello")[0] == 204
    story["folder"], story["lines"] = folder, folder.lines()
    story["numbers"] = folder.number, project(folder.number)[1]
    story["config"] = CONFIG.read_text()
    run("dpkg", "-r", "storage-agent-quota-helper", "storage-agent")
    assert not any(map(is_active, (AGENT, AGENT_SOCKET, HELPER_SOCKET)))
    assert not Path("/usr/bin/storage-agent").exists() and not Path("/run/storage-agent/quota-helper.sock").exists()
    untouched(story)


def test_a_purge_touches_neither_volumes_nor_project_files(story):
    run("dpkg", "-P", "storage-agent-quota-helper", "storage-agent")
    for gone in ("/var/log/storage-agent", "/var/lib/storage-agent-quota-helper", HELPER_CONFIG, "/etc/logrotate.d/storage-agent"):
        assert not Path(gone).exists(), gone
    untouched(story)


def untouched(story):
    """The volume, the kernel's limits, the lines of both files, and the configuration, which the reference proxy shares."""
    folder, (number, limit) = story["folder"], story["numbers"]
    assert (folder.path / "kept").read_bytes() == b"hello"
    assert (tagged(folder.holder), project(number)[1]) == (number, limit)
    assert folder.lines() == story["lines"] and all(story["lines"])
    for path, text in FOREIGN.items():
        assert path.read_text().startswith(text)
    assert project(77)[1] == 5 * MIB and (VOLUME / "foreign/kept").read_bytes() == b"kept" * 5000
    assert CONFIG.read_text() == story["config"]


def download(folder, relpath):
    with urllib.request.urlopen(folder.download_url(relpath), timeout=60) as reply:
        return reply.read()
