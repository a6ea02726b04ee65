"""Certificates of the simulated arrays: one authority and the good and bad certificates an appliance may show.

Made by the `openssl` command because Python's standard library cannot make any.
"""

import hashlib
import ssl
import subprocess
from pathlib import Path

# Each appliance's name in the certificate; `selfsigned` is what arrays ship with, the others are mistakes.
KINDS = {
    "good": ["IP:127.0.0.1", "DNS:localhost"],
    "other-name": ["DNS:array.invalid"],
    "selfsigned": ["IP:127.0.0.1", "DNS:localhost"],
    "expired": ["IP:127.0.0.1", "DNS:localhost"],
}
REQUEST_CONFIG = """\
[req]
distinguished_name = dn
prompt = no
[dn]
CN = {name}
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {alt}
"""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def make_certificates(folder):
    """Writes `ca.pem` and a `KIND.pem` with key and certificate for each kind into the folder, once."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "complete").exists():
        return folder
    issue(folder, "ca", "ca", "Authority of the simulated arrays", ["DNS:unused.invalid"], "30", "ca")
    for kind, names in KINDS.items():
        # A certificate of -1 days has ended before it began.
        days = "-1" if kind == "expired" else "30"
        issue(folder, kind, "leaf", f"simulated array, {kind}", names, days, kind if kind == "selfsigned" else "ca")
    (folder / "complete").touch()
    return folder


def issue(folder, name, section, common_name, names, days, signer):
    config = REQUEST_CONFIG.format(name=common_name, alt=", ".join(names))
    (folder / f"{name}.cnf").write_text(config)
    openssl(folder, "req", *KEY, "-config", f"{name}.cnf", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    signing = ["-signkey", f"{name}.key"] if signer == name else ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key"]
    extensions = ["-extfile", f"{name}.cnf", "-extensions", section]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", days, *signing, *extensions)


def openssl(folder, *arguments):
    result = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"openssl {' '.join(arguments)}: {result.stderr}")


def server_context(folder, kind):
    """A TLS server context that shows the certificate of this kind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(folder) / f"{kind}.pem", Path(folder) / f"{kind}.key")
    return context


def fingerprint(folder, kind):
    """SHA-256 of the certificate's DER form in lower-case hex, as `openssl x509 -fingerprint -sha256` without colons."""
    pem = (Path(folder) / f"{kind}.pem").read_text()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
