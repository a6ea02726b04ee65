"""Fixtures: one agent for the whole run, a fresh vfolder and a scratch folder for each test."""

import random

import pytest

from harness.agent import Agent
from harness.folder import Folder


@pytest.fixture(scope="session")
def agent():
    with Agent() as running:
        yield running


@pytest.fixture
def folder(agent):
    fresh = Folder(agent)
    yield fresh
    fresh.delete()


@pytest.fixture
def make_file(tmp_path):
    """Makes a source file of so many bytes that no compression or hole can hide a mistake in."""

    def make(size, name="source.bin"):
        path = tmp_path / name
        path.write_bytes(random.Random(size).randbytes(size))
        return path

    return make
