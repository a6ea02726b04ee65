"""Uploads many files with aiotus through whatever stands at the given URLs; one line for each file, as its twin for
tus-js-client prints them."""

import asyncio
import hashlib
import io
import json
import os
import random
import sys

import aiohttp
import yarl
from aiotus import core
from aiotus.common import ProtocolError


async def upload_url(session, name, size):
    headers = {"X-BackendAI-Storage-Auth-Token": os.environ["AGENT_MANAGER_SECRET"]}
    request = {"volume": "local", "vfid": os.environ["VFID"], "relpath": name, "size": size}
    for attempt in range(50):
        try:
            url = os.environ["AGENT_MANAGER"] + "/folder/file/upload"
            async with session.post(url, json=request, headers=headers) as reply:
                if reply.status == 200:
                    token = (await reply.json())["token"]
                    return yarl.URL(os.environ["AGENT_CLIENT"] + "/upload") % {"token": token}
                if reply.status not in (502, 504):
                    raise RuntimeError(f"{reply.status}: {await reply.text()}")
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise RuntimeError("no session")


async def upload(session, number, largest, chunk):
    name = f"py/{number}.bin"
    data = random.Random(number).randbytes(1 + number * 7919 % largest)
    url = await upload_url(session, name, len(data))
    for attempt in range(40):
        try:
            await core.upload_buffer(session, url, io.BytesIO(data), chunksize=chunk)
            return {"name": name, "digest": hashlib.sha256(data).hexdigest(), "retries": attempt}
        except (aiohttp.ClientError, ProtocolError):
            await asyncio.sleep(0.3)
    raise RuntimeError(f"{name} could not be uploaded")


async def main():
    first, count, parallel, largest, chunk = map(int, sys.argv[1:])
    numbers = iter(range(first, first + count))

    async def work(session):
        for number in numbers:
            print(json.dumps(await upload(session, number, largest, chunk)), flush=True)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(work(session) for _ in range(parallel)))


asyncio.run(main())
