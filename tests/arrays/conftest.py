"""Fixtures: what all rigs share, and one rig for each kind of site."""

import os
import tempfile
from pathlib import Path

import pytest

from arrays import sites


@pytest.fixture(scope="session")
def shared():
    """A folder that the agent's user can read, unlike pytest's own; ARRAYS_SHARED when several runs share one."""
    if given := os.environ.get("ARRAYS_SHARED"):
        yield sites.prepare(Path(given))
        return
    with tempfile.TemporaryDirectory(prefix="storage-array-test-") as folder:
        yield sites.prepare(Path(folder))


@pytest.fixture(scope="module", params=sites.SITES, ids=repr)
def rig(request, shared):
    with sites.Rig(request.param, shared) as running:
        yield running
