"""aiotus, an independent asyncio client."""

import asyncio

import aiohttp
import aiotus
import pytest
import requests
import yarl
from aiotus import core

from harness.folder import sha256
from harness.relay import BreakingRelay

CHUNK = 1 << 20


def upload(url, source, attempts=1):
    async def run():
        async with aiohttp.ClientSession() as session:
            with source.open("rb") as stream:
                await core.upload_buffer(session, yarl.URL(url), stream, chunksize=CHUNK)

    for attempt in range(1, attempts + 1):
        try:
            return asyncio.run(run())
        except aiohttp.ClientError:
            if attempt == attempts:
                raise


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 40 << 20])
def test_uploads(folder, make_file, size):
    source = make_file(size)
    upload(folder.upload_url("up.bin", size), source)
    assert sha256(folder.path / "up.bin") == sha256(source)
    assert sha256(requests.get(folder.download_url("up.bin")).content) == sha256(source)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_resumes_after_a_broken_connection(folder, make_file, direction):
    source = make_file(10 << 20)
    # Upwards a chunk is torn; downwards the agent's reply to a chunk it has stored is lost.
    limit = {"up": {"up": 5 << 20}, "down": {"down": 2000}}[direction]
    with BreakingRelay(folder.upload_url("broken.bin", 10 << 20), **limit) as relay:
        upload(relay.url, source, attempts=3)
        assert relay.broken == 1
    assert sha256(folder.path / "broken.bin") == sha256(source)


def test_learns_what_the_server_offers(agent):
    async def run():
        async with aiohttp.ClientSession() as session:
            return await core.configuration(session, yarl.URL(agent.client + "/upload"))

    offer = asyncio.run(run())
    assert offer.protocol_versions == ["1.0.0"]
    assert offer.max_size == 100 << 30
    assert set(offer.protocol_extensions) >= {"checksum", "termination", "expiration"}
    assert "creation" not in offer.protocol_extensions


def test_creation_fails_at_once_and_leaves_nothing(agent, folder, make_file):
    async def run():
        once = aiotus.RetryConfiguration(retry_attempts=1)
        with make_file(10).open("rb") as stream:
            return await aiotus.upload(agent.client + "/upload", stream, config=once)

    assert asyncio.run(run()) is None
    assert folder.list() == {}
