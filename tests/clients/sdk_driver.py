"""One vfolder operation of the Backend.AI SDK: `sdk_driver.py upload|download BASEDIR PATH...`.

Runs in the SDK's own environment; where the manager is comes from the SDK's BACKEND_* variables.
"""

import asyncio
import sys
from pathlib import Path

from ai.backend.client.session import AsyncSession


async def main(operation, basedir, *paths):
    async with AsyncSession() as session:
        vfolder = session.VFolder("test")
        if operation == "upload":
            await vfolder.upload(paths, basedir=Path(basedir), recursive=True)
        else:
            await vfolder.download(paths, basedir=basedir)


asyncio.run(main(*sys.argv[1:]))
