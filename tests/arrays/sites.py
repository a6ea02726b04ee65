"""The five kinds of site with an array: how each configures its volume, and what it may expect of it.

A `Rig` is one site running: a simulator, its directory, the agent. Tests get them from the fixtures in `conftest.py`.
"""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path

from arrays.simulators import tls
from arrays.simulators.control import Simulator
from arrays.tools import Tools
from harness.agent import UNPRIVILEGED, Agent

NFS_HOST = "10.0.0.7"
QTREE = "host1"
# As an appliance's own password policy would have it, and found in no other text.
NETAPP_PASSWORD = "Netapp-pw-" + secrets.token_hex(12)
WEKA_PASSWORD = "Weka-pw-" + secrets.token_hex(12)
PURE_TOKEN = f"T-{uuid.uuid4()}"
OUR_USER = UNPRIVILEGED if os.getuid() == 0 else os.getuid()


class Site:
    """One kind of site. `options` are the volume's options in the configuration besides the endpoint's."""

    def __init__(self, name, backend, module, arguments, prefix, endpoint, options, capabilities, limits, tool):
        self.name = name
        self.backend = backend
        self.module = module
        self.arguments = arguments
        self.prefix = prefix
        self.endpoint = endpoint
        self.options = options
        self.capabilities = capabilities
        # What can be limited: "scope", "host" or nothing.
        self.limits = limits
        # The vendor's tool, and its version where there are several.
        self.tool = tool

    def __repr__(self):
        return self.name


NETAPP = ["--user", "svc-storage", "--password", NETAPP_PASSWORD]
NETAPP_NEW = Site(
    "netapp-new",
    "netapp",
    "ontap",
    NETAPP,
    "netapp",
    "netapp_ontap_endpoint",
    {
        "netapp_ontap_user": "svc-storage",
        "netapp_ontap_password": NETAPP_PASSWORD,
        "netapp_volume_name": "vol1",
        "netapp_nfs_host": NFS_HOST,
        "netapp_svm_name": "svm1",
    },
    {"vfolder", "quota", "metric", "fast-fs-size", "fast-size"},
    "scope",
    "xcp",
)
NETAPP_OLD = Site(
    "netapp-old",
    "netapp",
    "ontap",
    [*NETAPP, "--qtree", QTREE, "--owner", OUR_USER],
    "netapp",
    "netapp_endpoint",
    {
        "netapp_admin": "svc-storage",
        "netapp_password": NETAPP_PASSWORD,
        "netapp_svm": "svm1",
        "netapp_volume_name": "vol1",
        "netapp_qtree_name": QTREE,
        "netapp_xcp_hostname": NFS_HOST,
    },
    {"vfolder", "vfhost-quota", "metric"},
    "host",
    "xcp",
)
WEKA = Site(
    "weka",
    "weka",
    "weka",
    ["--user", "svc-storage", "--password", WEKA_PASSWORD],
    "weka",
    "weka_endpoint",
    {
        "weka_username": "svc-storage",
        "weka_password": WEKA_PASSWORD,
        "weka_organization": "Root",
        "weka_fs_name": "fs1",
    },
    {"vfolder", "quota", "metric", "fast-fs-size"},
    "scope",
    None,
)


def pure(name, version, toolkit):
    return Site(
        name,
        "purestorage",
        "flashblade",
        ["--api-token", PURE_TOKEN],
        "purity",
        "purity_endpoint",
        {"purity_api_token": PURE_TOKEN, "purity_api_version": version, "purity_fs_name": "FB-NFS1"},
        {"vfolder", "metric", "fast-scan", "fast-fs-size"},
        None,
        toolkit,
    )


PURE_1 = pure("purestorage-1.x", "1.8", 1)
PURE_2 = pure("purestorage-2.x", "2.12", 2)
SITES = [NETAPP_OLD, NETAPP_NEW, WEKA, PURE_1, PURE_2]


class ArrayAgent(Agent):
    """An agent that logs all it can whose volume `local` is on the array.

    When it has ended, its log is searched for what `secrets()` lists, and the outcome is added to the file `searched`.
    """

    starting = threading.Lock()

    def __init__(self, volumes, path, secrets, searched):
        # Simulators and tools are found by absolute paths or in this PATH.
        # The tools write down how they were called.
        tables = f'[agent]\nwritable-paths = ["{path}"]'
        super().__init__(volumes=volumes, tables=tables, wrapper=["env", f"PATH={path}:/usr/bin:/bin"])
        self.secrets = secrets
        self.searched = searched

    def __enter__(self):
        # Many start at once here, and a port that was free may be taken before it is used.
        with self.starting:
            for _ in range(5):
                try:
                    return super().__enter__()
                except RuntimeError as error:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    if "listens there already" not in str(error):
                        raise
        raise RuntimeError("no free ports")

    def start(self):
        if "TRACE" not in self.command:
            self.command += ["--log-level", "TRACE"]
        super().start()

    def __exit__(self, *arguments):
        self.stop()
        if self.log.exists():
            self.search()
        super().__exit__(*arguments)

    def search(self):
        secrets = [*self.secrets(), self.token_secret, self.manager_secret]
        log = self.log.read_text(errors="replace")
        # The whole first: most secrets are nowhere, and logs are long.
        shown = [secret for secret in secrets if secret in log]
        lines = [line for line in log.splitlines() if any(secret in line for secret in shown)]
        outcome = {"bytes": len(log), "secrets": len(secrets), "lines": lines[:5], "debug": "DEBUG" in log}
        with self.searched.open("a") as file:
            file.write(json.dumps(outcome) + "\n")

    def lines(self):
        return self.log.read_text(errors="replace").splitlines()


class Rig:
    """A site running. `settings` are the simulator's, `options` add to or (None) take from the volume's."""

    def __init__(self, site, shared, settings=None, options=None, tools=True, arguments=()):
        self.site = site
        self.shared = shared
        self.settings = settings or {}
        self.changes = options or {}
        self.wants_tools = tools
        self.arguments = arguments

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="storage-array-test-"))
            if not os.environ.get("TESTS_KEEP"):
                stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder.chmod(0o755)
            self.root = self.folder / "mount"
            self.root.mkdir()
            if os.getuid() == 0:
                os.chown(self.root, OUR_USER, OUR_USER)
            self.array = stack.enter_context(Simulator(self.site.module, "--root", self.root, *self.simulator_arguments()))
            self.tools = Tools(self.folder / "bin")
            if self.wants_tools:
                self.install_tools()
            self.agent = stack.enter_context(self.new_agent())
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *arguments):
        return self.stack.__exit__(*arguments)

    def simulator_arguments(self):
        settings = [f"--set={name}={json.dumps(value)}" for name, value in self.settings.items()]
        return ["--certificates", self.shared / "certificates", *self.site.arguments, *self.arguments, *settings]

    def install_tools(self):
        if self.site.tool == "xcp":
            self.tools.install_xcp(exports={f"{NFS_HOST}:/vol1": str(self.root)})
        elif self.site.tool:
            self.tools.install_rapidfile(self.site.tool)

    def new_agent(self):
        """An agent for this site that is not started yet; a second one may serve the same volume."""
        return ArrayAgent(
            self.volume_table(), self.tools.folder, lambda: self.array.do("secrets"), self.shared / "searched"
        )

    def volume_table(self):
        options = {self.site.endpoint: self.array.url, f"{self.site.prefix}_ca_file": self.array.facts["ca"]}
        options[f"{self.site.prefix}_verify_ssl" if self.site.prefix != "purity" else "purity_ssl_verify"] = True
        options |= self.site.options
        if self.site is NETAPP_NEW:
            options["netapp_xcp_cmd"] = [str(self.tools.folder / "xcp")]
        options |= self.changes
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items() if value is not None]
        return "\n".join(
            ["[volume.local]", f'backend = "{self.site.backend}"', f'path = "{self.root}"', "[volume.local.options]", *lines]
        )

    @property
    def base(self):
        """The directory below which the agent keeps scopes and folders."""
        return self.root / QTREE if self.site is NETAPP_OLD else self.root

    def call(self, method, path, **parameters):
        return self.agent.call(method, path, volume="local", **parameters)

    def limit_on_array(self, scope):
        """The limit in bytes that the array keeps for the scope, None when there is none."""
        name = scope.path.name
        state = self.array.do("state")
        # A quota that was set while its directory went away stays on record, of an inode that is no more.
        return state["rules"].get(name) if self.site.module == "ontap" else state["living"].get(f"/{name}")


class Scope:
    """A quota scope of a rig, not made yet."""

    def __init__(self, rig):
        self.rig = rig
        self.uuid = uuid.uuid4()
        self.id = f"user:{self.uuid}"
        self.path = rig.base / self.uuid.hex

    def call(self, method, path="/quota-scope", **parameters):
        return self.rig.call(method, path, qsid=self.id, **parameters)

    def create(self, limit=None):
        return self.call("POST", options=None if limit is None else {"limit_bytes": limit})

    def describe(self):
        return self.call("GET")

    def update(self, limit):
        return self.call("PATCH", options={"limit_bytes": limit})

    def unset(self):
        return self.call("DELETE", "/quota-scope/quota")

    def remove(self):
        return self.call("DELETE")


def prepare(folder):
    """What all rigs of a run share: certificates, and what was found when agents' logs were searched for secrets."""
    folder.chmod(0o755)
    tls.make_certificates(folder / "certificates")
    (folder / "searched").touch()
    return folder


def eventually(condition, seconds=10):
    """Waits until the condition holds; its last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def secrets_of_all():
    return [NETAPP_PASSWORD, WEKA_PASSWORD, PURE_TOKEN]
