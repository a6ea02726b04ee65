"""The routes of the simulated FlashBlade."""

import re
import time

from ..rest import Array, Reply
from . import state
from .sessions import Sessions
from .state import FileSystem, PureError

VERSIONS = [f"1.{minor}" for minor in range(13)] + [f"2.{minor}" for minor in range(13)]
CLAUSE = re.compile(r"(\w+)\s*=\s*'([^']*)'")
PROTOCOLS = {"all", "HTTP", "SMB", "NFS", "S3"}
CAPACITY = 89314175302419


class FlashBlade(Array):
    """One array. Both API generations act on the same state."""

    settings = {
        "versions": VERSIONS,
        "idle_seconds": 1800,
        "most_sessions": 100,
        "logins_per_second": 0,
        # What a dead session is answered with: 403 on 2.x, unknown on 1.x.
        "dead_status": 403,
        # 1.x answers an unknown file system with status 400 or with no items, which no document tells.
        "unknown_name_1x": "empty",
        "page_cap": 1000,
        "with_physical": True,
        "blades": ["healthy"] * 7 + ["unclaimed"],
        "critical_alerts": 0,
        "no_performance": False,
    }

    def __init__(self, api_token, fs_name, root, provisioned):
        super().__init__()
        self.sessions = Sessions(self.settings, api_token)
        self.file_systems = {
            fs_name: FileSystem(fs_name, root, provisioned),
            "thrown-away": FileSystem("thrown-away", destroyed=True),
        }

    def routes(self):
        api = "/api/{}"
        return [
            ("GET", "/api/api_version", self.versions),
            ("POST", "/api/login", self.login),
            ("POST", "/api/logout", self.logout),
            ("GET", api + "/arrays", self.arrays),
            ("GET", api + "/arrays/space", self.array_space),
            ("GET", api + "/blades", self.list_blades),
            ("GET", api + "/alerts", self.alerts),
            ("GET", api + "/file-systems", self.list_file_systems),
            ("POST", api + "/file-systems", self.create_file_system),
            ("PATCH", api + "/file-systems", self.patch_file_system),
            ("DELETE", api + "/file-systems", self.delete_file_system),
            ("GET", api + "/file-systems/performance", self.performance),
            ("GET", api + "/quotas/{}", self.list_quotas),
            ("POST", api + "/quotas/{}", self.post_quota),
            ("PATCH", api + "/quotas/{}", self.patch_quota),
            ("DELETE", api + "/quotas/{}", self.delete_quota),
            ("GET", api + "/usage/{}", self.list_usage),
        ]

    # --- manners common to all calls

    def admit(self, request):
        if request.path in ("/api/api_version", "/api/login", "/api/logout"):
            return None
        if not self.sessions.admits(request.headers.get("x-auth-token")):
            body = PureError(0, "", "Invalid or expired session.").body
            return Reply(self.settings["dead_status"], body)
        version = request.path.split("/")[2]
        if version not in self.settings["versions"]:
            return Reply(404, PureError(0, version, "The API version is not supported.").body)
        return None

    def no_route(self, request):
        return Reply(404, PureError(0, request.path, "Not found.").body)

    def dispatch(self, request, handler, arguments):
        try:
            with self.lock:
                return super().dispatch(request, handler, arguments)
        except PureError as error:
            return Reply(error.status, error.body)
        except ValueError as error:
            return Reply(400, PureError(0, "", f"Invalid request: {error}").body)

    def page(self, request, version, items, **more):
        """One page of the items in the generation's envelope."""
        second = version.startswith("2.")
        clauses = CLAUSE.findall(request.parameters.get("filter", ""))
        items = [item for item in items if all(str(item.get(key)) == value for key, value in clauses)]
        start = int(request.parameters.get("continuation_token" if second else "token") or 0)
        size = min(int(request.parameters.get("limit") or self.settings["page_cap"]), self.settings["page_cap"])
        following = str(start + size) if start + size < len(items) else None
        paging = {"continuation_token": following, "total_item_count": len(items)}
        return Reply(200, {**(paging if second else {"pagination_info": paging}), "items": items[start : start + size], **more})

    def named(self, request, version, key="names"):
        """The file systems that the query names, all of them when it names none."""
        given = request.parameters.get(key, "")
        if key == "names" and version.startswith("1."):
            # The older API's changes name one by `name`.
            given = given or request.parameters.get("name", "")
        wanted = [name for name in given.split(",") if name]
        if not wanted:
            return list(self.file_systems.values())
        for name in wanted:
            if name not in self.file_systems:
                if version.startswith("2.") or self.settings["unknown_name_1x"] == "400":
                    raise PureError(400, name, "File system does not exist.")
        return [self.file_systems[name] for name in wanted if name in self.file_systems]

    # --- sessions

    def versions(self, request):
        return Reply(200, {"versions": self.settings["versions"]})

    def login(self, request):
        if self.sessions.too_fast():
            body = PureError(0, "", "Too many requests.").body
            return Reply(429, body, {"Retry-After": "1", "RateLimit-Limit": "100;w=1;burst=40", "RateLimit-Reset": "1"})
        token = self.sessions.open(request.headers.get("api-token"))
        if token is None:
            return Reply(401, PureError(0, "", "Invalid API token.").body)
        return Reply(200, {"username": "pureuser"}, {"x-auth-token": token})

    def logout(self, request):
        # The older client logs out before it has ever logged in.
        self.sessions.close(request.headers.get("x-auth-token"))
        return Reply(200)

    # --- the array

    def arrays(self, request, version):
        record = state.array_record(self.settings["idle_seconds"])
        if version.startswith("2."):
            record |= {"encryption": {"data_at_rest": {"enabled": True, "algorithms": ["AES-256-CTR"]}}, "security_update": None}
        return self.page(request, version, [record])

    def array_space(self, request, version):
        spaces = [fs.space(self.settings["with_physical"]) for fs in self.file_systems.values()]
        total = {key: sum(space[key] or 0 for space in spaces) for key in spaces[0] if key != "data_reduction"}
        array = state.array_record(1)
        record = {
            "name": array["name"],
            "id": array["id"],
            "capacity": CAPACITY,
            "parity": 1.0,
            "space": {**total, "data_reduction": 3.0},
            "time": int(time.time() * 1000),
        }
        return self.page(request, version, [record])

    def list_blades(self, request, version):
        return self.page(request, version, state.blades(self.settings["blades"]))

    def alerts(self, request, version):
        old = {"name": "1", "state": "closed", "severity": "critical", "component_name": "CH1.FB1"}
        new = [
            {"name": str(index + 2), "state": "open", "severity": "critical", "component_name": "CH1.FM1"}
            for index in range(self.settings["critical_alerts"])
        ]
        return self.page(request, version, [old, *new])

    # --- file systems

    def list_file_systems(self, request, version):
        found = self.named(request, version)
        with_physical = self.settings["with_physical"]
        items = [fs.record(2 if version.startswith("2.") else 1, with_physical) for fs in found]
        spaces = [fs.space(with_physical) for fs in found] or [FileSystem("none").space(with_physical)]
        space = {key: sum(each[key] or 0 for each in spaces) for key in spaces[0]}
        total = {"name": None, "provisioned": sum(fs.provisioned or 0 for fs in found), "space": space}
        return self.page(request, version, items, total=total)

    def the_one(self, request, version):
        found = self.named(request, version)
        if len(found) != 1 or not {"name", "names"} & set(request.parameters):
            raise PureError(400, "names", "Exactly one name is needed.")
        return found[0]

    def create_file_system(self, request, version):
        name = request.parameters.get("names") or request.json().get("name")
        if not name or name in self.file_systems:
            raise PureError(400, name or "names", "File system already exists." if name else "A name is needed.")
        self.file_systems[name] = FileSystem(name, None, request.json().get("provisioned"))
        return self.page(request, version, [self.file_systems[name].record(2, True)])

    def patch_file_system(self, request, version):
        fs = self.the_one(request, version)
        changes = request.json()
        if "provisioned" in changes:
            new = changes["provisioned"]
            ignore = request.parameters.get("ignore_usage", "false").lower() == "true"
            if new and new < fs.space()["virtual"] and not ignore:
                raise PureError(400, fs.name, "The new size is below the space in use.")
            fs.provisioned = new or None
        fs.hard_limit = changes.get("hard_limit_enabled", fs.hard_limit)
        fs.destroyed = changes.get("destroyed", fs.destroyed)
        return self.page(request, version, [fs.record(2 if version.startswith("2.") else 1, self.settings["with_physical"])])

    def delete_file_system(self, request, version):
        fs = self.the_one(request, version)
        if not fs.destroyed:
            raise PureError(400, fs.name, "File system must be destroyed before it is eradicated.")
        del self.file_systems[fs.name]
        return Reply(200)

    def performance(self, request, version):
        protocol = request.parameters.get("protocol", "all")
        if protocol not in PROTOCOLS:
            raise PureError(400, "protocol", f"Invalid protocol {protocol}.")
        found = [] if self.settings["no_performance"] else self.named(request, version)
        return self.page(request, version, [state.performance_record(fs.name, fs.id) for fs in found])

    # --- quotas of groups and users

    def selection(self, request, version, kind):
        """The file system and the numeric ids (None for all) that a quota call names."""
        if kind not in ("groups", "users"):
            raise PureError(404, kind, "Not found.")
        fs = self.named(request, version, "file_system_names")
        ids = request.parameters.get("gids" if kind == "groups" else "uids")
        if names := request.parameters.get("names"):
            fs_name, _, ids = names.rpartition("/")
            fs = [self.file_systems[fs_name]]
        return fs, [int(number) for number in ids.split(",")] if ids else None

    def list_quotas(self, request, version, kind):
        found, ids = self.selection(request, version, kind)
        items = [
            fs.quota_record(kind, number, quota)
            for fs in found
            for number, quota in fs.quotas[kind].items()
            if ids is None or number in ids
        ]
        return self.page(request, version, items)

    def set_quota(self, request, version, kind, must_exist):
        (fs, *_), ids = self.selection(request, version, kind)
        quota = request.json().get("quota")
        if not isinstance(quota, int) or quota <= 0 or not ids:
            raise PureError(400, "quota", "The quota must be positive.")
        for number in ids:
            if (number in fs.quotas[kind]) != must_exist:
                raise PureError(400, f"{fs.name}/{number}", "Quota does not exist." if must_exist else "Quota already exists.")
            fs.quotas[kind][number] = quota
        return self.page(request, version, [fs.quota_record(kind, number, quota) for number in ids])

    def post_quota(self, request, version, kind):
        return self.set_quota(request, version, kind, must_exist=False)

    def patch_quota(self, request, version, kind):
        return self.set_quota(request, version, kind, must_exist=True)

    def delete_quota(self, request, version, kind):
        (fs, *_), ids = self.selection(request, version, kind)
        for number in ids or []:
            if fs.quotas[kind].pop(number, None) is None:
                raise PureError(400, f"{fs.name}/{number}", "Quota does not exist.")
        return Reply(200)

    def list_usage(self, request, version, kind):
        found, ids = self.selection(request, version, kind)
        items = [fs.quota_record(kind, number, fs.quotas[kind].get(number, 0)) for fs in found for number in ids or [0]]
        return self.page(request, version, items)

    # --- the control door

    def verbs(self):
        return {
            "state": lambda: {**self.sessions.counts, "sessions": len(self.sessions.living())},
            "expire": lambda: self.sessions.expire(),
            "secrets": lambda: [self.sessions.api_token, *self.sessions.issued],
            "file-system": self.change_file_system,
        }

    def change_file_system(self, name, **changes):
        """`provisioned` (null is unlimited), `destroyed`; or `gone` to have it no more."""
        if changes.pop("gone", False):
            del self.file_systems[name]
            return
        for key, value in changes.items():
            if not hasattr(self.file_systems[name], key):
                raise ValueError(f"a file system has no {key}")
            setattr(self.file_systems[name], key, value)
