"""What a simulated FlashBlade holds: file systems, blades, alerts, group and user quotas."""

import os
import time
import uuid

from .. import tree

NFS_RULES = "*(rw,no_root_squash)"


class PureError(Exception):
    """A refusal: HTTP status, what it is about, and the sentence."""

    def __init__(self, status, context, message):
        super().__init__(message)
        self.status = status
        self.body = {"errors": [{"context": context, "message": message}]}


class FileSystem:
    """One file system; `root` is None when it is not mounted anywhere, `provisioned` None when unlimited."""

    def __init__(self, name, root=None, provisioned=None, destroyed=False):
        self.id = str(uuid.uuid4())
        self.name = name
        self.root = root
        self.provisioned = provisioned
        self.hard_limit = True
        self.destroyed = destroyed
        self.created = int(time.time() * 1000)
        # Quotas by kind (`groups`, `users`) and numeric id.
        self.quotas = {"groups": {}, "users": {}}

    def space(self, with_physical=True):
        """`virtual` is what clients wrote; the rest is what data reduction left of it."""
        used, _ = tree.usage(self.root) if self.root else (0, 0)
        unique = used // 3
        space = {"virtual": used, "unique": unique, "snapshots": 0, "data_reduction": 3.0 if used else None}
        return space | ({"total_physical": unique} if with_physical else {})

    def record(self, generation, with_physical):
        unlimited = None if generation == 2 else 0
        record = {
            "name": self.name,
            "id": self.id,
            "created": self.created,
            "destroyed": self.destroyed,
            "time_remaining": 86400000 if self.destroyed else None,
            "provisioned": unlimited if self.provisioned is None else self.provisioned,
            "hard_limit_enabled": self.hard_limit,
            "default_user_quota": 0,
            "default_group_quota": 0,
            "fast_remove_directory_enabled": True,
            "snapshot_directory_enabled": True,
            "writable": True,
            "promotion_status": "promoted",
            "requested_promotion_state": "promoted",
            "nfs": {"v3_enabled": True, "v4_1_enabled": False, "rules": NFS_RULES},
            "smb": {"enabled": False},
            "http": {"enabled": False},
            "space": self.space(with_physical),
        }
        return record

    def usage_of(self, kind, number):
        """Bytes in files of this gid or uid."""
        if not self.root:
            return 0
        total = 0
        for current, names, files in os.walk(self.root):
            for name in (*names, *files):
                status = os.lstat(os.path.join(current, name))
                if number == (status.st_gid if kind == "groups" else status.st_uid):
                    total += tree.blocks(status.st_size)
        return total

    def quota_record(self, kind, number, quota):
        member = kind.removesuffix("s")
        return {
            "name": f"{self.name}/{number}",
            "file_system": {"name": self.name, "id": self.id},
            member: {"id": number, "name": str(number)},
            "quota": quota,
            "usage": self.usage_of(kind, number),
            "file_system_default_quota": 0,
        }


def blades(states):
    return [
        {
            "name": f"CH1.FB{index}",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"blade{index}")),
            "status": state,
            "details": "" if state == "healthy" else "replace the blade",
            "raw_capacity": 19132488957952,
            "target": None,
            "progress": 0.0,
        }
        for index, state in enumerate(states, 1)
    ]


def array_record(idle_seconds):
    return {
        "name": "fb01",
        "id": "66992c13-6d81-433f-bb31-5fc33e76fa5f",
        "os": "Purity//FB",
        "version": "4.1.2",
        "revision": "4007aea5",
        "time_zone": "America/Los_Angeles",
        "ntp_servers": ["time.example.com"],
        "banner": "",
        "idle_timeout": int(idle_seconds * 1000),
        "smb_mode": "ad-rfc2307",
        "product_type": "FlashBlade",
        "_as_of": int(time.time() * 1000),
    }


def performance_record(name, identifier):
    return {
        "name": name,
        "id": identifier,
        "time": int(time.time() * 1000),
        "reads_per_sec": 120.3,
        "writes_per_sec": 40.1,
        "others_per_sec": 5.2,
        "usec_per_read_op": 310.5,
        "usec_per_write_op": 520.1,
        "usec_per_other_op": 66.0,
        "read_bytes_per_sec": 15728640.4,
        "write_bytes_per_sec": 5242880.0,
        "bytes_per_read": 131072.0,
        "bytes_per_write": 130744.0,
        "bytes_per_op": 126000.0,
    }
