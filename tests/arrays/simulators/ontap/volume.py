"""A simulated ONTAP volume: qtrees as directories, tree quota rules, the quota switch, and what reports show."""

import os
import shutil
import threading
import time
import uuid

from .. import tree
from .jobs import OntapError

MOST_QTREES = 4994
FIRST_INDEX = 1 << 61
INDEX_STEP = 1 << 32


def kibibytes(limit):
    """A limit as ONTAP stores it: whole KiB, rounded up."""
    return max(1024, -(-limit // 1024) * 1024)


class Qtree:
    """`appeared` once its directory has shown up on the NFS mount; `hidden` when it never shall."""

    def __init__(self, number, name, attributes):
        self.id = number
        self.name = name
        self.attributes = attributes
        self.appeared = False
        self.hidden = False


class Rule:
    """A tree quota rule; limits are None when unlimited."""

    def __init__(self, qtree):
        self.uuid = str(uuid.uuid4())
        self.qtree = qtree
        self.space = {"hard_limit": None, "soft_limit": None}
        self.files = {"hard_limit": None, "soft_limit": None}


class Volume:
    """One volume of an SVM. All methods are called with the array's lock held."""

    def __init__(self, array, name, svm, root, size, junction):
        self.array = array
        self.uuid = str(uuid.uuid4())
        self.name = name
        self.svm = svm
        self.root = root
        self.size = size
        self.junction = junction
        self.state = "online"
        self.qtrees = {0: Qtree(0, "", {})}
        self.next_id = 1
        self.rules = {}
        self.quota_state = "off"
        self.tracks_all = False
        self.tracked = set()
        self.enforced = {}
        # What the quotas cost: explicit switches, and resizes that the array began by itself.
        self.switches = {"on": 0, "off": 0}
        self.resizes = 0
        self.resize_again = False

    @property
    def settings(self):
        return self.array.settings

    def path(self, name):
        return os.path.join(self.root, name)

    # --- qtrees

    def qtree_named(self, name):
        return next((qtree for qtree in self.qtrees.values() if qtree.name == name), None)

    def reconcile(self):
        """Takes note of qtrees whose directory a client has removed over NFS."""
        for qtree in list(self.qtrees.values()):
            if qtree.id and qtree.appeared and not tree.is_directory(self.path(qtree.name)):
                del self.qtrees[qtree.id]
                if self.settings["rmdir_removes_rule"]:
                    self.rules = {key: rule for key, rule in self.rules.items() if rule.qtree != qtree.name}

    def check_new_qtree(self, name):
        self.reconcile()
        if not name:
            raise OntapError(5242894, "Qtree name \"\" is reserved for the default qtree.", target="name")
        if self.qtree_named(name) or tree.is_directory(self.path(name)):
            raise OntapError(1, "An entry with the same identifiers already exists", 409, "name")
        if len(self.qtrees) > MOST_QTREES:
            raise OntapError(5242886, "Failed to create qtree: the volume has the maximum number of qtrees.")

    def create_qtree(self, name, attributes):
        self.check_new_qtree(name)
        qtree = Qtree(self.next_id, name, attributes)
        self.next_id += 1
        self.qtrees[qtree.id] = qtree
        threading.Timer(self.settings["appear_seconds"], self.appear, [qtree]).start()

    def appear(self, qtree):
        """The directory shows up on the mount."""
        with self.array.lock:
            if self.qtrees.get(qtree.id) is not qtree or qtree.hidden:
                return
            attributes = qtree.attributes
            mode = int(str(attributes.get("unix_permissions", 755)), 8)
            tree.make(self.path(qtree.name), mode, owner(attributes, "user"), owner(attributes, "group"))
            qtree.appeared = True

    def delete_qtree(self, number):
        qtree = self.qtrees.get(number)
        if qtree is None:
            raise OntapError(5242927, "The qtree does not exist.", 404)
        if number == 0:
            raise OntapError(5242894, "The default qtree cannot be deleted.")
        del self.qtrees[number]
        shutil.rmtree(self.path(qtree.name), ignore_errors=True)

    def qtree_record(self, qtree):
        where = f"{self.junction}/{qtree.name}".rstrip("/") if self.junction else None
        record = {
            "id": qtree.id,
            "name": qtree.name,
            "volume": {"name": self.name, "uuid": self.uuid},
            "svm": self.svm,
            "security_style": qtree.attributes.get("security_style", "unix"),
            "unix_permissions": int(qtree.attributes.get("unix_permissions", 755)),
            "user": named(qtree.attributes.get("user")),
            "group": named(qtree.attributes.get("group")),
            "export_policy": {"id": 8589934593, "name": "default"},
            "_links": {"self": {"href": f"/api/storage/qtrees/{self.uuid}/{qtree.id}"}},
        }
        if where:
            record |= {"path": where, "nas": {"path": where}}
        return record

    # --- rules

    def rule_for(self, name):
        return next((rule for rule in self.rules.values() if rule.qtree == name), None)

    def check_new_rule(self, name, space, files):
        if name and not self.qtree_named(name):
            raise OntapError(5308496, f"Qtree \"{name}\" does not exist in volume \"{self.name}\".", target="qtree.name")
        if self.rule_for(name):
            raise OntapError(1, "An entry with the same identifiers already exists", 409)
        check_limits(space)
        check_limits(files)

    def create_rule(self, rule, space, files):
        name = rule.qtree
        self.check_new_rule(name, space, files)
        self.refuse_in_transition()
        if name and self.settings["auto_default_rule"] and not self.rule_for(""):
            default = Rule("")
            self.rules[default.uuid] = default
        set_limits(rule, space, files)
        self.rules[rule.uuid] = rule
        self.after_change(name, skipped=5308571, failed=5308568)

    def modify_rule(self, rule, space, files):
        if rule.uuid not in self.rules:
            raise OntapError(5308478, "The quota rule does not exist.", 404)
        check_limits({**rule.space, **space})
        self.refuse_in_transition()
        set_limits(rule, space, files)
        self.after_change(rule.qtree, skipped=5308567, failed=5308567)

    def delete_rule(self, rule):
        if self.rules.pop(rule.uuid, None) is None:
            raise OntapError(5308545, "The quota rule does not exist.", 404)
        if self.quota_state in ("on", "resizing") and not any(other.qtree for other in self.rules.values()):
            raise OntapError(5308572, "The quota rule was deleted but is enforced until quotas are switched off and on.")
        if self.quota_state in ("on", "resizing"):
            self.resize()

    def refuse_in_transition(self):
        if self.quota_state in ("initializing", "mixed", "corrupt"):
            raise OntapError(5308561, f"Quota state \"{self.quota_state}\" of volume \"{self.name}\" does not allow it.")

    def after_change(self, name, skipped, failed):
        """A changed rule of a volume whose quotas are on comes into force by a resize, where tracking allows one."""
        if self.quota_state not in ("on", "resizing"):
            return
        if self.array.faults.first(f"resize {self.name} {name}", "resize"):
            raise OntapError(failed, "The quota rule was stored, but the quota resize operation failed.")
        if not self.tracks_all and name not in self.tracked:
            raise OntapError(skipped, "The quota rule was stored, but the quota resize operation was skipped.")
        self.resize()

    def resize(self):
        """Begins a resize; what changes while one runs is taken up by one more."""
        if self.quota_state == "resizing":
            self.resize_again = True
            return
        self.resizes += 1
        self.quota_state = "resizing"
        threading.Timer(self.settings["resize_seconds"], self.resized).start()

    def resized(self):
        with self.array.lock:
            if self.quota_state != "resizing":
                return
            self.quota_state = "on"
            self.enforce()
            if self.resize_again:
                self.resize_again = False
                self.resize()

    def enforce(self):
        self.enforced = {rule.qtree: dict(rule.space) for rule in self.rules.values()}

    # --- the switch

    def switch(self, on):
        self.switches["on" if on else "off"] += 1
        if on:
            if self.quota_state in ("on", "resizing"):
                raise OntapError(5308507, f"Quotas are already enabled on volume \"{self.name}\".")
            if self.quota_state == "initializing":
                raise OntapError(5308561, "Quotas are being initialized.")
            if not self.rules:
                raise OntapError(5308562, f"No valid quota rules found in quota policy for volume \"{self.name}\".")
            self.quota_state = "initializing"
            threading.Timer(self.settings["initialize_seconds"], self.initialized).start()
        else:
            # Until then quotas look as if they were still on.
            threading.Timer(self.settings["off_seconds"], self.switched_off).start()

    def switched_off(self):
        with self.array.lock:
            self.quota_state = "off"
            self.enforced = {}

    def initialized(self):
        with self.array.lock:
            if self.quota_state == "initializing":
                self.quota_state = "on"
                self.tracks_all = self.rule_for("") is not None
                self.tracked = {rule.qtree for rule in self.rules.values()}
                self.enforce()

    # --- what the array shows

    def rule_record(self, rule):
        qtree = self.qtree_named(rule.qtree)
        record = {
            "uuid": rule.uuid,
            "type": "tree",
            "svm": self.svm,
            "volume": {"name": self.name, "uuid": self.uuid},
            "qtree": {"name": rule.qtree} | ({"id": qtree.id} if qtree else {}),
            "_links": {"self": {"href": f"/api/storage/quota/rules/{rule.uuid}"}},
        }
        for member in ("space", "files"):
            limits = {key: value for key, value in getattr(rule, member).items() if value is not None}
            if limits:
                record[member] = limits
        return record

    def reports(self, with_defaults):
        """Report records; there are none while quotas are off or initializing."""
        if self.quota_state not in ("on", "resizing"):
            return []
        records = []
        if with_defaults and self.tracks_all:
            records.append(self.report(None, FIRST_INDEX - INDEX_STEP))
        for qtree in self.qtrees.values():
            if qtree.id and (self.tracks_all or qtree.name in self.tracked):
                records.append(self.report(qtree, FIRST_INDEX + qtree.id * INDEX_STEP))
        return records

    def report(self, qtree, index):
        used, files = tree.usage(self.path(qtree.name)) if qtree else (0, 0)
        space = {"used": {"total": used}}
        for key, limit in self.enforced.get(qtree.name if qtree else "", {}).items():
            if limit is not None:
                space[key] = limit
                space["used"][f"{key}_percent"] = used * 100 // limit if limit else 0
        record = {
            "svm": self.svm,
            "volume": {"name": self.name, "uuid": self.uuid},
            "index": index,
            "type": "tree",
            "space": space,
            "files": {"used": {"total": files}},
            "_links": {"self": {"href": f"/api/storage/quota/reports/{self.uuid}/{index}"}},
        }
        if qtree:
            record["qtree"] = {"name": qtree.name, "id": qtree.id}
        return record

    def record(self):
        used, files = tree.usage(self.root)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {
            "uuid": self.uuid,
            "name": self.name,
            "svm": self.svm,
            "state": self.state,
            "style": "flexvol",
            "type": "rw",
            "size": self.size,
            "space": {
                "size": self.size,
                "available": max(self.size - used, 0),
                "used": used,
                "afs_total": self.size * 95 // 100,
                "filesystem_size": self.size,
                "percent_used": used * 100 // self.size,
            },
            "files": {"maximum": 21251126, "used": files},
            "quota": {"state": self.quota_state, "enabled": self.quota_state != "off"},
            "metric": {
                "timestamp": now,
                "duration": "PT15S",
                "status": self.settings["metric_status"],
                "iops": {"read": 120, "write": 40, "other": 15, "total": 175},
                "latency": {"read": 310, "write": 520, "other": 66, "total": 337},
                "throughput": {"read": 15728640, "write": 5242880, "other": 0, "total": 20971520},
            },
            "statistics": {
                "timestamp": now,
                "status": "ok",
                "iops_raw": {"read": 421727167, "write": 178011, "other": 90211, "total": 421995389},
                "latency_raw": {"read": 1792666552544, "write": 21012003, "other": 33110, "total": 1792687597657},
                "throughput_raw": {"read": 27610800432299, "write": 7711223311, "other": 0, "total": 27618511655610},
            },
            "_links": {"self": {"href": f"/api/storage/volumes/{self.uuid}"}},
        }
        if self.junction:
            record["nas"] = {"path": self.junction, "export_policy": {"name": "default"}}
        return record


def owner(attributes, member):
    value = attributes.get(member) or {}
    return int(value.get("id", 0))


def named(value):
    """`user` and `group` as ONTAP shows them: id and name, both text."""
    number = str((value or {}).get("id", "0"))
    return {"id": number, "name": (value or {}).get("name", number)}


def set_limits(rule, space, files):
    for target, changes in ((rule.space, space), (rule.files, files)):
        for key in ("hard_limit", "soft_limit"):
            if key in changes:
                limit = changes[key]
                unlimited = limit is None or limit == -1
                target[key] = None if unlimited else kibibytes(limit) if target is rule.space else limit


def check_limits(changes):
    hard, soft = changes.get("hard_limit"), changes.get("soft_limit")
    for limit in (hard, soft):
        if limit is None or limit == -1:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise OntapError(5308574, f"The limit {limit} is out of range.", target="space")
        if limit > 1152921504606846976:
            raise OntapError(5308573, f"The limit {limit} is too large.", target="space")
    if None not in (hard, soft) and -1 not in (hard, soft) and soft > hard:
        raise OntapError(5308575, "The soft limit is above the hard limit.", target="space.soft_limit")
