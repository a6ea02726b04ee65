"""Fixtures: a server of one's own for each test, and the table that has agents publish to it."""

import pytest

from harness.valkey import Valkey


@pytest.fixture
def valkey():
    with Valkey(password="not-a-secret") as server:
        yield server


@pytest.fixture
def events(valkey):
    return f'[events]\nvalkey-addr = "127.0.0.1:{valkey.port}"\npassword = "{valkey.password}"\n'
