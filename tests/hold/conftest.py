"""Fixtures: where agents note what was found in their logs when the suite's script did not say."""

import os
import tempfile

import pytest


@pytest.fixture(scope="session", autouse=True)
def searched():
    if "HOLD_SEARCHED" not in os.environ:
        os.environ["HOLD_SEARCHED"] = tempfile.mkstemp(prefix="storage-agent-hold-")[1]
    return os.environ["HOLD_SEARCHED"]
