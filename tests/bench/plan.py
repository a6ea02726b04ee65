"""How much is measured: seconds of work for a check, or enough for figures that can be quoted."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

from . import trees
from .measure import GIB, MIB


class Plan:
    """`place` should be a file system in memory, so that no disk is measured; `disk` one that is not."""

    def __init__(self, long, place, disk, certificate):
        self.long, self.place, self.disk, self.certificate = long, place, disk, certificate
        self.rounds = 5 if long else 2
        self.large = GIB if long else 128 * MIB
        self.repeat = 2 if long else 1
        self.ranges = 200 if long else 40
        self.requests = 20_000 if long else 2000
        self.cold = 10 * GIB if long else 128 * MIB
        self.upload = GIB if long else 64 * MIB
        self.session = 4 * MIB if long else MIB
        self.usage_files = 200_000 if long else 5000
        self.copy_files = 20_000 if long else 1000

    def file_systems(self):
        """Where trees are measured: fresh ext4 and XFS where root can mount them, else wherever the disk is."""
        if os.getuid() == 0 and self.long and all(shutil.which(f"mkfs.{fs}") for fs in ("ext4", "xfs")):
            yield "ext4", trees.image("ext4", 12 * GIB, self.disk)
            yield "XFS", trees.image("xfs", 12 * GIB, self.disk)
        else:
            yield "as it is", nullcontext(self.disk)


def memory():
    """A place in memory with room for some GiB, or none."""
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 6 * GIB:
        return shm
    return None
