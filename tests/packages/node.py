"""A storage node that the packages were installed on, as its administrator sees it."""

import ctypes
import grp
import pwd
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from harness.agent import Agent

EXAMPLES = Path("/usr/share/doc/storage-agent/examples")
HELPER_EXAMPLES = Path("/usr/share/doc/storage-agent-quota-helper/examples")
CONFIG = Path("/etc/backend.ai/storage-proxy.toml")
CREDENTIALS = Path("/etc/backend.ai/credentials")
HELPER_CONFIG = Path("/etc/storage-agent/quota-helper.conf")
AGENT, AGENT_SOCKET = "storage-agent.service", "storage-agent.socket"
HELPER, HELPER_SOCKET = "quota-helper.service", "quota-helper.socket"
CAP_SYS_ADMIN = 1 << 21


def run(*command, check=True, **options):
    """A finished program with its output as text."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def systemctl(*arguments, check=True):
    done = run("systemctl", *arguments, check=False)
    if check and done.returncode:
        units = " ".join(word for word in arguments if "." in word)
        log = run("journalctl", "--no-pager", "-n", "60", check=False).stdout
        raise AssertionError(f"systemctl {arguments}: {done.stderr}\nstatus of {units}:\n{log}")
    return done.stdout.strip()


def shown(unit, name):
    """A property of a unit."""
    return systemctl("show", "--value", "--property", name, unit)


def pid(unit):
    return int(shown(unit, "MainPID"))


def is_active(unit):
    return shown(unit, "ActiveState") == "active"


def journal(unit):
    return run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout


def process_status(number):
    """`/proc/PID/status` (proc_pid_status(5)) as text."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def capabilities(number):
    """The five sets, by name, as numbers."""
    status = process_status(number)
    return {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def limits(number):
    """`/proc/PID/limits` (proc_pid_limits(5)): the soft one of each."""
    lines = Path(f"/proc/{number}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[0] for line in lines}


def kernel_has_landlock():
    """Asks for the version of its rules (landlock_create_ruleset(2))."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def drop_in(unit, sample, *changes):
    """Copies a sample of a drop-in to where its first line says, with texts replaced."""
    text = sample.read_text()
    target = Path(text.splitlines()[0].removeprefix("# "))
    assert target.parent.name == f"{unit}.d" and target.name == sample.name, target
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    systemctl("daemon-reload")
    return target


def mode_of(path, root=Path("/")):
    """`mode owner:group path` of an installed file."""
    stat = (root / str(path).lstrip("/")).lstat()
    try:
        names = pwd.getpwuid(stat.st_uid).pw_name, grp.getgrgid(stat.st_gid).gr_name
    except KeyError:
        names = stat.st_uid, stat.st_gid
    return f"{stat.st_mode & 0o7777:04o} {names[0]}:{names[1]} {path}"


class InstalledAgent(Agent):
    """The API of the agent that systemd runs. Nothing here starts or stops it."""

    def __init__(self, token_secret, manager_secret):
        super().__init__()
        self.token_secret, self.manager_secret = token_secret, manager_secret
        self.client, self.manager = "http://127.0.0.1:6021", "http://127.0.0.1:6022"

    def is_ready(self):
        try:
            with urllib.request.urlopen(self.manager + "/readyz", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False


def eventually(condition, patience=90):
    """Waits for background work; the condition's last value is returned."""
    deadline = time.monotonic() + patience
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return value


def newer(package, folder):
    """The same Debian package as a later revision."""
    tree = Path(folder) / package.stem
    shutil.rmtree(tree, ignore_errors=True)
    run("dpkg-deb", "-R", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("-1\n", "-2\n").replace("-1)", "-2)"))
    target = Path(folder) / package.name.replace("-1_", "-2_")
    run("dpkg-deb", "-Znone", "-b", tree, target)
    return target
