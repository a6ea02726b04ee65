"""Both APIs under requests that are made from their own OpenAPI documents, right ones and wrong ones.

The documents leave open which volumes, folders and tokens there are; here they get a few that exist, so that the
requests get past the first check. What a reply may be is left as it is: any answer of 5xx, any reply that is not as
described, and any method that is answered without being described, is a failure.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from harness.agent import Agent
from harness.folder import Folder

DOCUMENTS = Path(__file__).resolve().parents[2] / "agent" / "openapi"
CASES = 10_000
# Whether a request that fits the schema is accepted depends on what is on the disk.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "ignored_auth",
]


@pytest.fixture(scope="module")
def agent():
    with Agent() as agent:
        yield agent


def furnished(agent):
    """A folder with a few entries."""
    folder = Folder(agent)
    folder.mkdir("directory/inner")
    for name in ("file.txt", "directory/inner.txt"):
        (folder.path / name).write_bytes(b"content")
    (folder.path / "link").symlink_to("file.txt")
    return folder


def known(schema, *values):
    """The values that exist, or any other that fits."""
    return {"anyOf": [{"enum": list(values)}, schema]}


def manager_document(agent):
    document = json.loads((DOCUMENTS / "manager.json").read_text())
    schemas = document["components"]["schemas"]
    folders = [furnished(agent).vfid, furnished(agent).vfid, uuid.uuid4().hex]
    schemas["VolumeName"] = known(schemas["VolumeName"], "local", "local", "noop")
    schemas["VfolderId"] = known(schemas["VfolderId"], *folders)
    schemas["QuotaScopeId"] = known(schemas["QuotaScopeId"], folders[0].split("/")[0])
    schemas["RelPath"] = known(schemas["RelPath"], "file.txt", "directory", "link", "", ".", "..", "/etc", "a/../b")
    return document


def client_document(agent):
    document = json.loads((DOCUMENTS / "client.json").read_text())
    folder = furnished(agent)
    urls = [
        folder.upload_url("new.bin", 1000),
        folder.upload_url("directory", 10),
        folder.download_url("file.txt"),
        folder.download_url("directory"),
        folder.download_url("missing"),
        folder.archive_url("file.txt", "directory"),
    ]
    tokens = [url.split("token=")[1].split("&")[0] for url in urls]
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "token":
                    parameter["schema"] = known(parameter["schema"], *tokens)
                if parameter["name"] == "Range":
                    parameter["schema"] = known(parameter["schema"], "bytes=0-1", "bytes=-3", "bytes=5-", "bytes=9-1")
    return document


def fuzz(tmp_path, document, url, *arguments):
    """Sends requests until there were enough of them; the number."""
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    sent, seed = 0, 1
    while sent < CASES:
        program = Path(sys.executable).with_name("schemathesis")
        command = [program, "run", tmp_path / "openapi.json", "--url", url, "--no-color", "--continue-on-failure"]
        command += ["--phases", "coverage,fuzzing", "--max-examples", "150", "--seed", str(seed)]
        command += ["--checks", ",".join(CHECKS), "--generation-database", "none", *arguments]
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        generated = re.search(r"(\d+) generated", done.stdout)
        assert done.returncode == 0 and generated, f"seed {seed}\n{done.stdout[:9000]}\n{done.stderr[-2000:]}"
        sent, seed = sent + int(generated[1]), seed + 1
    return sent


def test_the_manager_facing_api_answers_as_described(agent, tmp_path):
    secret = f"X-BackendAI-Storage-Auth-Token: {agent.manager_secret}"
    sent = fuzz(tmp_path, manager_document(agent), agent.manager, "--header", secret)
    print(f"\nmanager-facing API: {sent} requests, 0 answers of 5xx, 0 that are not as described")


def test_the_client_facing_api_answers_as_described(agent, tmp_path):
    sent = fuzz(tmp_path, client_document(agent), agent.client)
    print(f"\nclient-facing API: {sent} requests, 0 answers of 5xx, 0 that are not as described")


def test_the_agent_is_well_afterwards_and_no_request_panicked(agent):
    assert agent.call("GET", "/health")["status"] == "ok"
    assert "panicked" not in agent.log.read_text(errors="replace")
