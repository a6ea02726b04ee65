"""The other sides, such as nginx and rustus: each started for one measurement and ended by its own pid."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from harness.agent import free_ports

NGINX = """\
{user}
worker_processes auto;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {body};
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_max_body_size 0;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        location / {{ root {root}; }}
        location /contained/ {{ alias {root}/; disable_symlinks on; }}
        location /upload {{
            client_body_in_file_only clean;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_http_version 1.1;
            proxy_pass http://received;
        }}
    }}
    upstream received {{ server 127.0.0.1:{port}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        server_name received;
        return 204;
    }}
}}
"""


@contextmanager
def certificate():
    """The files of a certificate for 127.0.0.1 and of its key, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="storage-agent-bench-") as folder:
        cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )
        # The servers run as other users; the key is worth nothing.
        for path in (folder, cert, key):
            os.chmod(path, 0o755 if path == folder else 0o644)
        yield cert, key


def wait_for(port, process, patience=20):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    process.terminate()
    raise RuntimeError(f"{process.args[0]} does not listen (exit code {process.wait(20)})")


class Server:
    """A process with a folder of its own."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="storage-agent-bench-", dir=self.place))
        self.folder.chmod(0o755)
        self.log = (self.folder / "output.log").open("wb")
        try:
            self.process = self.start()
        except (OSError, RuntimeError) as failure:
            said = (self.folder / "output.log").read_text(errors="replace")
            self.clear()
            raise RuntimeError(f"{failure}\n{said[-2000:]}") from None
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.clear()

    def clear(self):
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]


class Nginx(Server):
    """nginx with sendfile and its own defaults, serving a directory and storing bodies of requests."""

    def __init__(self, place, root, tls):
        super().__init__(place)
        self.root, self.tls = root, tls

    def start(self):
        port, tls_port = free_ports(2)
        self.url, self.tls_url = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}"
        body = self.folder / "body"
        body.mkdir()
        body.chmod(0o777)
        config = self.folder / "nginx.conf"
        user = "user www-data;" if os.getuid() == 0 else ""
        config.write_text(NGINX.format(user=user, folder=self.folder, body=body, port=port, tls_port=tls_port,
                                       root=self.root, cert=self.tls[0], key=self.tls[1]))
        command = ["nginx", "-c", str(config), "-e", str(self.folder / "start.log")]
        process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_for(port, process)
        return process


class Rustus(Server):
    """rustus with its defaults but for the size of a PATCH, which it limits to 256 KiB; files and infos in a directory."""

    def start(self):
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/files"
        command = ["rustus", "--host", "127.0.0.1", "--port", str(port), "--data-dir", self.folder / "data",
                   "--info-dir", self.folder / "info", "--log-level", "ERROR", "--max-body-size", str(64 << 20)]
        process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.folder)
        wait_for(port, process)
        return process
