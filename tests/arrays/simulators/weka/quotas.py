"""Directory quotas of a simulated WEKA file system, kept by inode."""

import os
import time

from .. import tree

UNLIMITED = 9223372036854775807
NO_QUOTA = "Directory has no quota"


class WekaError(Exception):
    """A refusal with its HTTP status and body."""

    def __init__(self, status, message, data=None):
        super().__init__(message)
        self.status = status
        self.body = {"message": message} | ({"data": data} if data is not None else {})


class Quota:
    """One quota; limits in bytes, None when unlimited."""

    def __init__(self, inode, path):
        self.inode = inode
        self.path = path
        self.hard = None
        self.soft = None
        self.grace = None
        self.owner = ""
        self.since = time.time()


class FileSystem:
    """A file system whose directory `root` is mounted; `prefix` is the mounted directory's path inside it."""

    def __init__(self, array, name, root, size, prefix=""):
        self.array = array
        self.name = name
        self.root = root
        self.size = size
        self.prefix = prefix.rstrip("/")
        self.uid = "5f1c8d14-54e4-7d2f-7c0b-2a6f0a2f7f11"
        self.quotas = {}
        self.writes = 0

    # --- directories and inodes

    def directory(self, inode):
        """The directory with this inode number, or None."""
        for level in (self.top_level, self.everywhere):
            for path, number in level():
                if number == inode:
                    return path
        return None

    def top_level(self):
        yield self.root, os.stat(self.root).st_ino
        with os.scandir(self.root) as entries:
            yield from ((entry.path, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False))

    def everywhere(self):
        for current, names, _ in os.walk(self.root):
            for name in names:
                path = os.path.join(current, name)
                yield path, os.lstat(path).st_ino

    def inside(self, path):
        """The path inside the file system of a directory under the mount."""
        return f"{self.prefix}/{os.path.relpath(path, self.root)}".removesuffix("/.") or "/"

    def resolve(self, path):
        """The inode of a path inside the file system."""
        if not (path + "/").startswith(self.prefix + "/"):
            raise WekaError(404, "PATH_NOT_FOUND")
        try:
            return os.lstat(os.path.join(self.root, path.removeprefix(self.prefix).strip("/"))).st_ino
        except FileNotFoundError:
            raise WekaError(404, "PATH_NOT_FOUND") from None

    # --- quotas

    def get(self, inode):
        quota = self.quotas.get(inode)
        if quota is None:
            raise WekaError(self.array.settings["no_quota_status"], NO_QUOTA)
        return quota

    def put(self, inode, values):
        for name in ("hard_limit_bytes", "soft_limit_bytes", "grace_seconds"):
            if name not in values:
                raise WekaError(400, "Missing parameters", {"missing_params": [name]})
        path = self.directory(inode)
        if path is None:
            raise WekaError(404, f"inode_id: '{inode}' not found")
        if not self.array.settings["data_services"] and inode not in self.quotas and any(os.scandir(path)):
            raise WekaError(400, "Directory is not empty: setting its quota needs a Data Services container")
        quota = Quota(inode, self.inside(path))
        change(quota, values)
        self.quotas[inode] = quota
        self.writes += 1
        return quota

    def patch(self, inode, values):
        quota = self.get(inode)
        change(quota, values)
        self.writes += 1
        return quota

    def delete(self, inode):
        quota = self.get(inode)
        path = self.directory(inode)
        if self.array.settings["delete_needs_empty"] and path and any(os.scandir(path)):
            raise WekaError(400, "Directory is not empty")
        del self.quotas[inode]
        self.writes += 1
        return quota

    def status(self, quota):
        adding = time.time() < quota.since + self.array.settings["adding_seconds"]
        return "ADDING" if adding else "ACTIVE"

    # --- what the cluster shows

    def limits(self, quota):
        shown = self.array.settings["unlimited"]
        return {
            "hard_limit_bytes": shown if quota.hard is None else quota.hard,
            "soft_limit_bytes": shown if quota.soft is None else quota.soft,
            "grace_seconds": quota.grace,
            "time_over_soft_limit": None,
            "owner": quota.owner,
        }

    def used(self, path):
        total, count = tree.usage(path) if path else (0, 0)
        return {"total_bytes": total, "data_blocks": total // tree.BLOCK - count, "metadata_blocks": count}

    def object(self, quota):
        """The object of one quota; the oldest releases wrap it once more.

        Releases before 5 call the use `used_bytes` here and `total_bytes` in the list, as the bodies of a real cluster
        in the tests of WEKA's CSI driver show.
        """
        used = self.used(self.directory(quota.inode))
        if self.array.settings["profile"] != "5.1":
            used = {"used_bytes": used["total_bytes"]}
        shown = {
            "inode_id": quota.inode,
            **used,
            **self.limits(quota),
            "snap_view_id": 0,
            "status": self.status(quota),
        }
        return {self.quota_id(quota): shown} if self.array.settings["profile"] == "3.14" else shown

    def quota_id(self, quota):
        prefix = "DIR:" if self.array.settings["profile"] == "5.1" else ""
        return f"{prefix}0x{quota.inode:x}:0"

    def listing(self):
        """All quotas as the list shows them, those of directories that are gone without use."""
        paths = {inode: path for path, inode in self.top_level()}
        return [
            {
                "quota_id": self.quota_id(quota),
                "inode_id": quota.inode,
                "full_path": f"{self.name}:{quota.path}",
                "path": quota.path,
                "fsName": self.name,
                **self.used(paths.get(quota.inode)),
                **self.limits(quota),
                "status": self.status(quota),
            }
            for quota in sorted(self.quotas.values(), key=lambda each: each.inode)
        ]

    def record(self):
        used, _ = tree.usage(self.root)
        free = max(self.size - used, 0)
        return {
            "id": "FSId<2>",
            "uid": self.uid,
            "name": self.name,
            "group_id": "FSGroupId<0>",
            "group_name": "default",
            "status": self.array.settings["fs_status"],
            "is_ready": self.array.settings["fs_status"] == "READY",
            "is_creating": False,
            "is_removing": False,
            "is_encrypted": False,
            "auth_required": False,
            "auto_max_files": False,
            "total_budget": self.size,
            "used_total": used,
            "used_total_data": used,
            "free_total": free,
            "available_total": self.size,
            "ssd_budget": self.size,
            "used_ssd": used,
            "used_ssd_data": used,
            "used_ssd_metadata": 40960,
            "free_ssd": free,
            "available_ssd": self.size,
            "available_ssd_metadata": 4398046511,
            "metadata_budget": 4398046511,
            "data_reduction": False,
            "object_storages": [],
            "obs_buckets": [],
        }


def number(values, name):
    """A limit from JSON or from the query, or None when it is not there or means no limit."""
    value = values.get(name)
    if value is None:
        return None
    try:
        value = int(value)
    except (TypeError, ValueError):
        raise WekaError(400, "Bad parameter", {"param": name, "error": "not a number"}) from None
    if value < 0 or value > UNLIMITED:
        raise WekaError(400, "Bad parameter", {"param": name, "error": "out of range"})
    return None if value in (0, UNLIMITED) else tree.blocks(value)


def change(quota, values):
    hard = number(values, "hard_limit_bytes") if "hard_limit_bytes" in values else quota.hard
    soft = number(values, "soft_limit_bytes") if "soft_limit_bytes" in values else quota.soft
    owner = values.get("owner") or quota.owner
    if len(owner) > 48:
        raise WekaError(400, "Bad parameter", {"param": "owner", "error": "longer than 48 characters"})
    quota.hard, quota.soft, quota.owner = hard, soft, owner
    quota.grace = values.get("grace_seconds", quota.grace) or None
