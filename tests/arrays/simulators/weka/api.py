"""The routes of the simulated WEKA cluster."""

import json
import re
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl

from ..rest import Array, Reply
from .quotas import FileSystem, WekaError
from .tokens import Tokens

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# The only calls that need no token.
OPEN = {"/api/v2/login", "/api/v2/login/refresh", "/api/v2/healthcheck"}


class Cluster(Array):
    """One cluster with one file system. `profile` is the release whose shapes it has: 3.14, 4.2 or 5.1."""

    settings = {
        "profile": "4.2",
        "access_seconds": 300,
        "refresh_seconds": 2592000,
        "password_change_required": False,
        "adding_seconds": 0.2,
        # Status of the "Directory has no quota" answer, which depends on the release: 404, 500 or 200.
        "no_quota_status": 404,
        # Without the service, a quota cannot be set on a directory that holds something.
        "data_services": False,
        "delete_needs_empty": False,
        # How a missing limit is shown: null, 0 or 9223372036854775807.
        "unlimited": None,
        # Whether quotas can be set by v2 at all; the oldest clusters know only v1's call.
        "v2_quota_put": True,
        "wrong_inode": False,
        "page_cap": 100,
        "health_quotes": True,
        "cluster_status": "OK",
        "io_status": "STARTED",
        "drives_active": 7,
        "fs_status": "READY",
        "idle": False,
        "no_statistics": False,
    }

    def __init__(self, user, password, organization, name, root, size, prefix):
        super().__init__()
        self.credentials = {"username": user, "password": password}
        self.organization = organization
        self.tokens = Tokens(self.settings)
        self.fs = FileSystem(self, name, root, size, prefix)
        self.tasks = 0

    def routes(self):
        one = "/api/v2/fileSystems/{}/quota/{}"
        return [
            ("POST", "/api/v2/login", self.login),
            ("POST", "/api/v2/login/refresh", self.refresh),
            ("GET", "/api/v2/healthcheck", self.health),
            ("GET", "/api/v2/cluster", self.cluster),
            ("GET", "/api/v2/stats", self.statistics),
            ("GET", "/api/v2/fileSystems", self.file_systems),
            ("GET", "/api/v2/fileSystems/{}", self.file_system),
            ("GET", "/api/v2/fileSystems/{}/resolvePath", self.resolve_path),
            ("GET", "/api/v2/fileSystems/{}/quota", self.list_quotas),
            ("GET", one, self.get_quota),
            ("PUT", one, self.put_quota),
            ("PATCH", one, self.patch_quota),
            ("DELETE", one, self.delete_quota),
            ("POST", "/api/v1", self.rpc),
        ]

    # --- manners common to all calls

    def admit(self, request):
        if request.path in OPEN or self.tokens.admits(request.headers.get("Authorization")):
            return None
        return Reply(401, {"data": "Unauthorized"})

    def no_route(self, request):
        return Reply(404, {"message": f"Route {request.method} - {request.path} does not exist"})

    def dispatch(self, request, handler, arguments):
        try:
            with self.lock:
                return super().dispatch(request, handler, arguments)
        except WekaError as error:
            return Reply(error.status, error.body)
        except (ValueError, json.JSONDecodeError) as error:
            return Reply(400, {"message": f"Invalid request: {error}", "data": {"error": str(error)}})

    def values(self, request):
        """Parameters from the query and from a body of either encoding."""
        if "form" in (request.headers.get("Content-Type") or ""):
            return {**request.parameters, **dict(parse_qsl(request.body.decode()))}
        return {**request.parameters, **request.json()}

    def data(self, value, **more):
        return Reply(200, {"data": value, **more})

    def find(self, request):
        pattern, handler, arguments = super().find(request)
        old = self.settings["profile"] != "5.1" and handler == self.resolve_path
        unable = not self.settings["v2_quota_put"] and handler in (self.put_quota, self.patch_quota)
        return (pattern, None, ()) if old or unable else (pattern, handler, arguments)

    def the_fs(self, uid):
        if uid != self.fs.uid:
            raise WekaError(404, f"uid: '{uid}' not found")
        return self.fs

    # --- tokens

    def login(self, request):
        values = self.values(request)
        good = all(values.get(key) == value for key, value in self.credentials.items())
        good = good and values.get("org", self.organization) == self.organization
        self.tokens.counts["logins" if good else "refused_logins"] += 1
        return self.data(self.tokens.issue()) if good else Reply(401, {"data": "Unauthorized"})

    def refresh(self, request):
        issued = self.tokens.renew(self.values(request).get("refresh_token"))
        return self.data(issued) if issued else Reply(401, {"data": "Unauthorized"})

    # --- the cluster

    def health(self, request):
        return Reply(200, b'"ok"' if self.settings["health_quotes"] else b"ok")

    def cluster(self, request):
        active = self.settings["drives_active"]
        release = {"3.14": "3.14.3", "4.2": "4.2.7", "5.1": "5.1.31"}[self.settings["profile"]]
        return self.data(
            {
                "name": "weka1",
                "release": release,
                "status": self.settings["cluster_status"],
                "io_status": self.settings["io_status"],
                "init_stage": "INITIALIZED",
                "is_cluster": True,
                "capacity": {"total_bytes": 1829454741504, "hot_spare_bytes": 305009786880, "unprovisioned_bytes": 0},
                "activity": {
                    "num_reads": 0,
                    "num_writes": 0,
                    "num_ops": 0,
                    "sum_bytes_read": 0,
                    "sum_bytes_written": 0,
                    "obs_upload_bytes_per_second": 0,
                    "obs_download_bytes_per_second": 0,
                },
                "drives": {"active": active, "total": 7},
                "io_nodes": {"active": 7, "total": 7},
                "hosts": {
                    "total_count": 7,
                    "active_count": 7,
                    "backends": {"active": 7, "total": 7},
                    "clients": {"active": 0, "total": 0},
                },
                "rebuild": {
                    "progressPercent": 0,
                    "protectionState": [{"numFailures": 0, "percent": 100, "MiB": 403200}],
                },
                "hot_spare": 1,
                "active_alerts_count": 0,
                "upgrade": "",
                "time": {"cluster_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
            }
        )

    def statistics(self, request):
        """Counters of the cluster, or of one file system when `category` is `fs_stats` (as WEKA's CSI driver asks)."""
        category = request.parameters.get("category", "ops")
        names = [value.rpartition(".")[2] for key, value in request.repeated if key == "stat"]
        now = datetime.now(timezone.utc)
        if "interval" in request.parameters:
            start, end = now - timedelta(seconds=int(request.parameters["interval"])), now
        else:
            start, end = self.moment(request, "start_time"), self.moment(request, "end_time")
        suffix = f"[fS: {int(request.parameters['param[fS]'])}]" if category == "fs_stats" else ""
        buckets = [] if self.settings["no_statistics"] else self.buckets(start, end, names, suffix)
        return self.data({"all": {category: list(buckets)}})

    def moment(self, request, name):
        text = request.parameters.get(name, "")
        if not UTC_TIME.fullmatch(text):
            raise WekaError(400, "Bad parameter", {"param": name, "error": f"'{text}' is not an ISO 8601 time in UTC"})
        return datetime.fromisoformat(text)

    def buckets(self, start, end, names, suffix):
        """One bucket a minute; the one that is still being filled has little in it."""
        values = {
            "READS": 120.5,
            "WRITES": 40.2,
            "READ_BYTES": 15728640.0,
            "WRITE_BYTES": 5242880.0,
            "READ_LATENCY": 310.5,
            "WRITE_LATENCY": None if self.settings["idle"] else 520.25,
        }
        filling = datetime.now(timezone.utc).replace(second=0, microsecond=0)
        moment = start.replace(second=0, microsecond=0)
        while moment < end:
            partial = moment >= filling
            shown = {name + suffix: 0.0 if partial else values.get(name) for name in names}
            yield {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "resolution": 60, "stats": shown}
            moment += timedelta(minutes=1)

    def file_systems(self, request):
        return self.data([self.fs.record()])

    def file_system(self, request, uid):
        return self.data(self.the_fs(uid).record())

    def resolve_path(self, request, uid):
        return self.data({"inode_id": str(self.the_fs(uid).resolve(request.parameters.get("path", "/")))})

    # --- quotas

    def list_quotas(self, request, uid):
        fs = self.the_fs(uid)
        records = fs.listing()
        if self.settings["profile"] == "3.14":
            return self.data({record.pop("quota_id"): record for record in records})
        start = int(request.parameters.get("next_token", 0))
        page = [record for record in records if record["inode_id"] >= start]
        cap = self.settings["page_cap"]
        rest = {"next_token": page[cap]["inode_id"]} if len(page) > cap else {}
        return self.data(page[:cap], **rest)

    def get_quota(self, request, uid, inode):
        fs = self.the_fs(uid)
        return self.data(fs.object(fs.get(int(inode))))

    def changed(self, quota):
        self.tasks += 1
        shown = self.fs.object(quota)
        if self.settings["wrong_inode"]:
            shown["inode_id"] = 1
        return self.data({**shown, "cw_task_id": self.tasks})

    def put_quota(self, request, uid, inode):
        return self.changed(self.the_fs(uid).put(int(inode), self.values(request)))

    def patch_quota(self, request, uid, inode):
        return self.changed(self.the_fs(uid).patch(int(inode), self.values(request)))

    def delete_quota(self, request, uid, inode):
        return self.changed(self.the_fs(uid).delete(int(inode)))

    def rpc(self, request):
        """JSON-RPC of v1: errors come with status 200."""
        body = request.json()
        answer = {"id": body.get("id"), "jsonrpc": "2.0"}
        if body.get("method") != "set_directory_quota":
            return Reply(200, {**answer, "error": {"code": -32601, "message": "Method not found"}})
        parameters = body.get("params") or {}
        values = {"hard_limit_bytes": None, "soft_limit_bytes": None, "grace_seconds": None, **parameters}
        try:
            quota = self.fs.put(int(parameters.get("inode_context", 0)), values)
        except WekaError as error:
            return Reply(200, {**answer, "error": {"code": -32000, "message": str(error)}})
        return Reply(200, {**answer, "result": {"inode_id": quota.inode}})

    # --- the control door

    def verbs(self):
        return {
            "state": self.show_state,
            "expire": self.tokens.expire,
            "secrets": lambda: [self.credentials["password"], *self.tokens.issued],
            "quota": lambda name, limit: self.put_by_name(name, limit),
            "drop-quota": lambda name: self.fs.quotas.pop(self.fs.resolve(f"{self.fs.prefix}/{name}"), None) and None,
        }

    def put_by_name(self, name, limit):
        """A quota set by an administrator on a directory under the mount."""
        with self.lock:
            inode = self.fs.resolve(f"{self.fs.prefix}/{name}")
            self.fs.quotas.pop(inode, None)
            service, self.settings["data_services"] = self.settings["data_services"], True
            self.fs.put(inode, {"hard_limit_bytes": limit, "soft_limit_bytes": limit, "grace_seconds": 0})
            self.settings["data_services"] = service

    def show_state(self):
        """`quotas` are all on record, `living` those of directories that exist; both limits by path."""
        with self.lock:
            inodes = {inode for _, inode in self.fs.top_level()}
            return {
                "living": {quota.path: quota.hard for quota in self.fs.quotas.values() if quota.inode in inodes},
                "quotas": {quota.path: quota.hard for quota in self.fs.quotas.values()},
                "inodes": {quota.path: quota.inode for quota in self.fs.quotas.values()},
                "writes": self.fs.writes,
                **self.tokens.counts,
            }
