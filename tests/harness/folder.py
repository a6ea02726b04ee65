"""A vfolder and the URLs of its files, made as the Backend.AI manager makes them."""

import hashlib
import uuid
from pathlib import Path
from urllib.parse import urlencode


def sha256(data):
    """Hex digest of bytes or of a file."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


class Folder:
    """A fresh vfolder on one of the agent's volumes: in a quota scope of its own, or as old managers name them."""

    def __init__(self, agent, volume="local", bare=False, options=None):
        self.agent = agent
        self.volume = volume
        self.scope = None if bare else f"user:{uuid.uuid4()}"
        self.vfid = str(uuid.uuid4()) if bare else f"{self.scope}/{uuid.uuid4().hex}"
        self.call("POST", "/folder/create", options=options)
        self.path = Path(self.call("GET", "/folder/mount")["path"])

    def call(self, method, path, **parameters):
        return self.agent.call(method, path, volume=self.volume, vfid=self.vfid, **parameters)

    def upload_url(self, relpath, size, **query):
        token = self.call("POST", "/folder/file/upload", relpath=relpath, size=size)["token"]
        return f"{self.agent.client}/upload?{urlencode({'token': token, **query})}"

    def download_url(self, relpath, **query):
        token = self.call("POST", "/folder/file/download", relpath=relpath)["token"]
        return f"{self.agent.client}/download?{urlencode({'token': token, **query})}"

    def archive_url(self, *files, filename=None):
        reply = self.agent.call(
            "POST",
            "/folder/file/archive-download-token",
            volume=self.volume,
            virtual_folder_id=self.vfid,
            files=list(files),
            filename=filename,
        )
        return f"{self.agent.client}/download-archive?{urlencode({'token': reply['token']})}"

    def list(self, relpath=""):
        """The directory's entries by name."""
        return {item["name"]: item for item in self.call("POST", "/folder/file/list", relpath=relpath)["items"]}

    def mkdir(self, *relpaths):
        return self.call("POST", "/folder/file/mkdir", relpath=list(relpaths), parents=True, exist_ok=True)

    def usage(self):
        return self.call("GET", "/folder/usage")

    def delete_files(self, *relpaths, recursive=False):
        return self.call("POST", "/folder/file/delete", relpaths=list(relpaths), recursive=recursive)

    def delete(self):
        return self.call("POST", "/folder/delete")
