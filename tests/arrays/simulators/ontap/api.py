"""The routes of the simulated ONTAP cluster."""

import base64
import json
import re
import uuid
from urllib.parse import quote

from ..rest import Array, Reply
from . import query
from .jobs import Jobs, OntapError
from .volume import Rule, Volume

HAL = "application/hal+json"
IS_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
EXPENSIVE = {"quota", "files", "statistics", "metric"}


def by(name):
    return lambda record: record[name]


def qtree_key(record):
    return f"{record['volume']['uuid']}.{record['id']:05}"


class Cluster(Array):
    """One cluster with one SVM, unless the test adds volumes of another."""

    settings = {
        "queued_seconds": 0.02,
        "job_seconds": 0.05,
        "appear_seconds": 0.2,
        "initialize_seconds": 0.3,
        "resize_seconds": 0.1,
        "off_seconds": 0.05,
        "job_life": 300,
        # Older releases tell a job's failure only by `code` and `message`.
        "job_error_object": True,
        # Whether a POST of something that exists fails at once or in its job.
        "late_validation": False,
        "auto_default_rule": True,
        "rmdir_removes_rule": False,
        "page_cap": 1000,
        "metric_status": "ok",
    }

    def __init__(self, user, password):
        super().__init__()
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.authorization = f"Basic {token}"
        self.secrets = [password, token]
        self.jobs = Jobs(self)
        self.volumes = {}

    def add_volume(self, name, root, svm="svm1", size=1 << 40, junction=None):
        known = next((v.svm for v in self.volumes.values() if v.svm["name"] == svm), None)
        svm = known or {"name": svm, "uuid": str(uuid.uuid4())}
        volume = Volume(self, name, svm, root, size, f"/{name}" if junction is None else junction)
        self.volumes[volume.uuid] = volume
        return volume

    def routes(self):
        volumes, qtrees = "/api/storage/volumes", "/api/storage/qtrees"
        rules, reports = "/api/storage/quota/rules", "/api/storage/quota/reports"
        return [
            ("GET", "/api/cluster", self.get_cluster),
            ("GET", "/api/svm/svms", self.get_svms),
            ("GET", "/api/cluster/jobs", self.list_jobs),
            ("GET", "/api/cluster/jobs/{}", self.get_job),
            ("GET", volumes, self.list_volumes),
            ("GET", volumes + "/{}", self.get_volume),
            ("PATCH", volumes + "/{}", self.patch_volume),
            ("GET", volumes + "/{}/metrics", self.get_metrics),
            ("GET", qtrees, self.list_qtrees),
            # The official SDK follows a Location with a slash before the query.
            ("GET", qtrees + "/", self.list_qtrees),
            ("POST", qtrees, self.post_qtree),
            ("GET", qtrees + "/{}/{}", self.get_qtree),
            ("PATCH", qtrees + "/{}/{}", self.patch_qtree),
            ("DELETE", qtrees + "/{}/{}", self.delete_qtree),
            ("GET", rules, self.list_rules),
            ("POST", rules, self.post_rule),
            ("GET", rules + "/{}", self.get_rule),
            ("PATCH", rules + "/{}", self.patch_rule),
            ("DELETE", rules + "/{}", self.delete_rule),
            ("GET", reports, self.list_reports),
            ("GET", reports + "/{}/{}", self.get_report),
        ]

    # --- manners common to all calls

    def admit(self, request):
        if request.headers.get("Authorization") != self.authorization:
            body = OntapError(6691623, "User is not authorized.").body()
            return Reply(401, body, {"WWW-Authenticate": 'Basic realm="Authorization required"'}, HAL)
        return None

    def no_route(self, request):
        return Reply(404, OntapError(3, "API not found").body(), content_type=HAL)

    def dispatch(self, request, handler, arguments):
        try:
            self.jobs.evict()
            return super().dispatch(request, handler, arguments)
        except OntapError as error:
            return Reply(error.status, error.body(), content_type=HAL)
        except (ValueError, json.JSONDecodeError) as error:
            return Reply(400, OntapError(262197, f"Invalid value: {error}").body(), content_type=HAL)

    def body(self, request):
        return query.nested(request.json())

    def collection(self, request, records, identity, key, expensive=(), ignored=()):
        answer = query.collection(
            request.path, records, request.parameters, identity, key, self.settings["page_cap"], expensive, ignored
        )
        return Reply(200, answer, content_type=HAL)

    def one(self, request, record, identity, expensive=()):
        fields = query.wanted_fields(request.parameters) or ["*"]
        return Reply(200, query.selected(record, identity, fields, expensive), content_type=HAL)

    def work(self, request, svm, check, act, location=None):
        """Starts the job of a POST, PATCH or DELETE; mistakes that are seen at once fail the call itself."""
        if not self.settings["late_validation"]:
            check()
        job = self.jobs.start(f"{request.method} {request.path}", svm, act)
        # The lock is let go while the caller waits for the job.
        status, body = self.jobs.reply_to(job, int(request.parameters.get("return_timeout", 0)))
        return Reply(status, body, {"Location": location} if location else {}, HAL)

    def volume(self, identifier):
        if not IS_UUID.fullmatch(identifier):
            message = f'"{identifier}" is an invalid value for field "uuid" (<UUID>)'
            raise OntapError(2, message, 404, "uuid")
        if identifier not in self.volumes:
            raise OntapError(4, "entry doesn't exist", 404, "uuid")
        volume = self.volumes[identifier]
        with self.lock:
            volume.reconcile()
        return volume

    def volume_of(self, body):
        """The volume that a POST names, by uuid or by name within the SVM."""
        wanted, svm = body.get("volume") or {}, body.get("svm") or {}
        if not svm:
            raise OntapError(2621707, "No SVM was specified.", target="svm")
        for volume in self.volumes.values():
            if all(volume.svm.get(key) == svm[key] for key in ("uuid", "name") if key in svm):
                if wanted.get("uuid", wanted.get("name")) in (volume.uuid, volume.name):
                    with self.lock:
                        volume.reconcile()
                    return volume
        raise OntapError(918236, "The specified volume was not found.", target="volume")

    def all_volumes(self):
        return [self.volume(identifier) for identifier in list(self.volumes)]

    # --- cluster, jobs, volumes

    def get_cluster(self, request):
        version = {"full": "NetApp Release 9.14.1", "generation": 9, "major": 14, "minor": 1}
        record = {"name": "cluster1", "uuid": "1cd8a442-86d1-11e0-ae1c-123478563412", "version": version}
        return self.one(request, record, ("name", "uuid"))

    def get_svms(self, request):
        svms = {volume.svm["uuid"]: volume.svm for volume in self.volumes.values()}
        return self.collection(request, [{**svm, "state": "running"} for svm in svms.values()], ("uuid", "name"), by("uuid"))

    def job_record(self, job):
        return job.record(self.settings["job_error_object"])

    def list_jobs(self, request):
        return self.collection(request, [self.job_record(job) for job in self.jobs.jobs.values()], ("uuid",), by("uuid"))

    def get_job(self, request, identifier):
        job = self.jobs.jobs.get(identifier)
        if job is None:
            raise OntapError(4, "entry doesn't exist", 404, "uuid")
        return self.one(request, self.job_record(job), ("uuid",))

    def list_volumes(self, request):
        with self.lock:
            records = [volume.record() for volume in self.all_volumes()]
        return self.collection(request, records, ("uuid", "name"), by("uuid"), EXPENSIVE)

    def get_volume(self, request, identifier):
        volume = self.volume(identifier)
        with self.lock:
            return self.one(request, volume.record(), ("uuid", "name"), EXPENSIVE)

    def patch_volume(self, request, identifier):
        volume = self.volume(identifier)
        enabled = query.dig(self.body(request), "quota.enabled")
        if not isinstance(enabled, bool):
            raise OntapError(262179, "Unexpected argument.")
        return self.work(request, volume.svm, lambda: None, lambda: volume.switch(enabled))

    def get_metrics(self, request, identifier):
        volume = self.volume(identifier)
        with self.lock:
            record = {**volume.record()["metric"], "uuid": volume.uuid}
        return self.collection(request, [record], ("timestamp", "duration", "status"), by("timestamp"), (), ("interval",))

    # --- qtrees

    def list_qtrees(self, request):
        with self.lock:
            records = [v.qtree_record(q) for v in self.all_volumes() for q in v.qtrees.values()]
        return self.collection(request, records, ("id", "name", "volume", "svm"), qtree_key)

    def find_qtree(self, identifier, number):
        volume = self.volume(identifier)
        qtree = volume.qtrees.get(int(number)) if number.isdigit() else None
        if qtree is None:
            raise OntapError(4, "entry doesn't exist", 404, "id")
        return volume, qtree

    def get_qtree(self, request, identifier, number):
        volume, qtree = self.find_qtree(identifier, number)
        return self.one(request, volume.qtree_record(qtree), ("id", "name", "volume", "svm"))

    def post_qtree(self, request):
        body = self.body(request)
        volume = self.volume_of(body)
        name = body.get("name")
        if not isinstance(name, str):
            raise OntapError(5242953, "The qtree name is required.", target="name")
        attributes = {key: body[key] for key in ("user", "group", "security_style", "unix_permissions") if key in body}

        def check():
            with self.lock:
                volume.check_new_qtree(name)

        location = f"/api/storage/qtrees/?volume.name={quote(volume.name)}&name={quote(name)}"
        return self.work(request, volume.svm, check, lambda: volume.create_qtree(name, attributes), location)

    def patch_qtree(self, request, identifier, number):
        volume, qtree = self.find_qtree(identifier, number)
        body = self.body(request)
        changes = {key: body[key] for key in ("user", "group", "security_style", "unix_permissions") if key in body}
        return self.work(request, volume.svm, lambda: None, lambda: qtree.attributes.update(changes))

    def delete_qtree(self, request, identifier, number):
        volume, qtree = self.find_qtree(identifier, number)
        return self.work(request, volume.svm, lambda: None, lambda: volume.delete_qtree(qtree.id))

    # --- quota rules and reports

    def list_rules(self, request):
        with self.lock:
            records = [v.rule_record(rule) for v in self.all_volumes() for rule in v.rules.values()]
        return self.collection(request, records, ("uuid", "svm", "volume", "type", "qtree"), by("uuid"))

    def find_rule(self, identifier):
        for volume in self.volumes.values():
            if identifier in volume.rules:
                return volume, volume.rules[identifier]
        raise OntapError(4, "entry doesn't exist", 404, "uuid")

    def get_rule(self, request, identifier):
        volume, rule = self.find_rule(identifier)
        return self.one(request, volume.rule_record(rule), ("uuid",))

    def post_rule(self, request):
        body = self.body(request)
        volume = self.volume_of(body)
        if body.get("type") != "tree":
            raise OntapError(262179, "Only quota rules of type \"tree\" are simulated.", target="type")
        name = query.dig(body, "qtree.name")
        space, files = body.get("space") or {}, body.get("files") or {}
        if name is None:
            raise OntapError(262177, "Field \"qtree.name\" is required.", target="qtree.name")

        def check():
            with self.lock:
                volume.check_new_rule(name, space, files)

        rule = Rule(name)
        location = f"/api/storage/quota/rules/{rule.uuid}"
        return self.work(request, volume.svm, check, lambda: volume.create_rule(rule, space, files), location)

    def patch_rule(self, request, identifier):
        volume, rule = self.find_rule(identifier)
        body = self.body(request)
        space, files = body.get("space") or {}, body.get("files") or {}
        if set(body) - {"space", "files", "user_mapping"}:
            raise OntapError(262196, "Field cannot be set in this operation.")
        return self.work(request, volume.svm, lambda: None, lambda: volume.modify_rule(rule, space, files))

    def delete_rule(self, request, identifier):
        volume, rule = self.find_rule(identifier)
        return self.work(request, volume.svm, lambda: None, lambda: volume.delete_rule(rule))

    def reports(self, request):
        # The official SDK writes the boolean as `False`.
        with_defaults = request.parameters.get("show_default_records", "true").lower() != "false"
        with self.lock:
            return [record for volume in self.all_volumes() for record in volume.reports(with_defaults)]

    def list_reports(self, request):
        identity = ("svm", "volume", "index", "type", "qtree")
        return self.collection(request, self.reports(request), identity, by("index"), (), ("show_default_records",))

    def get_report(self, request, identifier, index):
        for record in self.reports(request):
            if record["volume"]["uuid"] == identifier and str(record["index"]) == index:
                return self.one(request, record, ("volume", "index"))
        raise OntapError(4, "entry doesn't exist", 404, "index")

    # --- the control door

    def verbs(self):
        return {
            "state": self.show_state,
            "quota": self.set_quota_state,
            "qtree": self.put_qtree,
            "drop-qtree": self.drop_qtree,
            "rule": self.put_rule,
            "drop-rule": self.drop_rule,
            "volume": lambda name, root, svm: self.add_volume(name, root, svm).uuid,
            "secrets": lambda: self.secrets,
            "reset-quotas": self.reset_quotas,
            "forget-jobs": lambda: self.jobs.jobs.clear(),
        }

    def first(self):
        return next(iter(self.volumes.values()))

    def show_state(self):
        """Qtrees, limits and quota costs of the first volume."""
        with self.lock:
            volume = self.first()
            volume.reconcile()
            return {
                "uuid": volume.uuid,
                "quota": volume.quota_state,
                "qtrees": {q.name: {"id": q.id, **q.attributes} for q in volume.qtrees.values() if q.id},
                "rules": {rule.qtree: rule.space["hard_limit"] for rule in volume.rules.values()},
                "enforced": {name: space["hard_limit"] for name, space in volume.enforced.items()},
                "switches": volume.switches,
                "resizes": volume.resizes,
                "unfinished_jobs": sum(job.ended is None for job in self.jobs.jobs.values()),
            }

    def set_quota_state(self, state):
        """An administrator's hand: off, on, initializing, mixed or corrupt."""
        with self.lock:
            volume = self.first()
            volume.quota_state = state
            if state == "on":
                volume.quota_state = "initializing"
                volume.initialized()

    def reset_quotas(self):
        """A volume on which nobody has ever set a quota."""
        with self.lock:
            volume = self.first()
            volume.rules, volume.enforced, volume.tracked = {}, {}, set()
            volume.quota_state, volume.tracks_all = "off", False

    def put_qtree(self, name, on_disk=True, owner=None):
        """A qtree made by an administrator; without a directory when `on_disk` is false."""
        with self.lock:
            volume = self.first()
            attributes = {"user": {"id": owner}, "group": {"id": owner}} if owner is not None else {}
            volume.create_qtree(name, attributes)
            qtree = volume.qtree_named(name)
            qtree.hidden = not on_disk
            volume.appear(qtree)

    def drop_qtree(self, name, keep_directory=False):
        """A qtree removed by an administrator; with `keep_directory` a plain directory stays in its place."""
        with self.lock:
            volume = self.first()
            qtree = volume.qtree_named(name)
            if keep_directory:
                del volume.qtrees[qtree.id]
            else:
                volume.delete_qtree(qtree.id)

    def put_rule(self, name, limit):
        with self.lock:
            volume = self.first()
            volume.rules = {key: rule for key, rule in volume.rules.items() if rule.qtree != name}
            volume.create_rule(Rule(name), {"hard_limit": limit, "soft_limit": limit}, {})

    def drop_rule(self, name):
        with self.lock:
            volume = self.first()
            volume.rules = {key: rule for key, rule in volume.rules.items() if rule.qtree != name}
