"""A client that speaks HTTP over TLS by hand, so that a test decides which bytes go into which packet, and what ended how."""

import hmac
import os
import socket
import ssl
import struct
from pathlib import Path
from urllib.parse import urlsplit

# From linux/tls.h and linux/tcp.h.
TCP_ULP, SOL_TLS, TLS_TX, TLS_SET_RECORD_TYPE = 31, 282, 1, 1

CIPHER = os.environ["KTLS_CIPHER"]
NAMES = {
    "aes128": ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"),
    "aes256": ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_AES_256_GCM_SHA384"),
    "chacha20": ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_CHACHA20_POLY1305_SHA256"),
}[CIPHER]
VERSIONS = {"1.2": (ssl.TLSVersion.TLSv1_2, NAMES[0]), "1.3": (ssl.TLSVersion.TLSv1_3, NAMES[1])}


def statistics():
    """The kernel's counters (Documentation/networking/tls.rst); none of them before the module is loaded."""
    try:
        lines = Path("/proc/net/tls_stat").read_text().split("\n")
    except FileNotFoundError:
        return {"TlsTxSw": 0, "TlsRxSw": 0, "TlsDecryptError": 0}
    return {name: int(number) for name, number in (line.split() for line in lines if line)}


def context(version, certificate):
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    settings.check_hostname = False
    settings.load_verify_locations(certificate)
    settings.minimum_version = settings.maximum_version = VERSIONS[version][0]
    if version == "1.2":
        settings.set_ciphers(NAMES[0])
    return settings


class Client:
    """One connection. All that it sends passes through `flush`, which a test may put off to have more in one packet."""

    def __init__(self, address, settings, receive_buffer=None, dribble=False, session=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(60)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.dribble = dribble
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = settings.wrap_bio(self.incoming, self.outgoing, session=session)
        self.by_kernel = False
        self.received = bytearray()
        self.raw = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        data = self.outgoing.read()
        if self.dribble:
            for byte in data:
                self.socket.sendall(bytes([byte]))
        else:
            self.socket.sendall(data)

    def feed(self, most=65536):
        """Takes in what arrives; False when nothing more comes."""
        data = self.socket.recv(most)
        self.raw += data
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    def shake_hands(self, flush=True):
        """Without `flush`, the last message is left for the next call of `flush`."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                assert self.feed(), "the server ended the handshake"
        if flush:
            self.flush()
        return self

    def write(self, data, flush=True):
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view):]
        if flush:
            self.flush()

    def request(self, method, url, flush=True, **headers):
        target = urlsplit(url)
        lines = [f"{method} {target.path}?{target.query} HTTP/1.1", f"Host: {target.netloc}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.write(("\r\n".join(lines) + "\r\n\r\n").encode(), flush)

    def read(self, most=1 << 20):
        """Decrypted bytes; none at a close_notify. An end without one is an `ssl.SSLEOFError`."""
        while True:
            try:
                return self.tls.read(most)
            except ssl.SSLWantReadError:
                self.feed()
            except ssl.SSLZeroReturnError:
                return b""

    def take(self, count):
        while len(self.received) < count:
            data = self.read()
            assert data, f"the reply ended {count - len(self.received)} bytes early"
            self.received += data
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def reply(self):
        """Status, headers and body of a reply with a length."""
        while b"\r\n\r\n" not in self.received:
            data = self.read()
            assert data, "no reply"
            self.received += data
        head = self.take(self.received.index(b"\r\n\r\n") + 4).decode().splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        return int(head[0].split()[1]), headers, self.take(int(headers.get("content-length", 0)))

    def get(self, url, **headers):
        self.request("GET", url, **headers)
        return self.reply()

    def close_notify(self, flush=True):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        if flush:
            self.flush()

    def send_by_kernel(self, keys, sent):
        """From here on the client's kernel encrypts too, by which records of any type can be sent: `send_record`. `keys` is
        the file that `SSLContext.keylog_filename` names, `sent` the number of records that were sent. TLS 1.3 alone."""
        secret = next(bytes.fromhex(line.split()[2]) for line in reversed(keys.read_text().splitlines())
                      if line.startswith("CLIENT_TRAFFIC_SECRET_0"))
        number, length, digest = {"aes128": (51, 16, "sha256"), "aes256": (52, 32, "sha384"), "chacha20": (54, 32, "sha256")}[CIPHER]

        def derived(label, size):
            # HKDF-Expand-Label (RFC 8446 section 7.1), whose results fit into one block.
            name = b"tls13 " + label
            info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0\1"
            return hmac.digest(secret, info, digest)[:size]

        key, iv = derived(b"key", length), derived(b"iv", 12)
        salt = 0 if CIPHER == "chacha20" else 4
        self.socket.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        parameters = struct.pack("=HH", 0x0304, number) + iv[salt:] + key + iv[:salt] + sent.to_bytes(8, "big")
        self.socket.setsockopt(SOL_TLS, TLS_TX, parameters)
        self.by_kernel = True

    def send_record(self, kind, content):
        self.socket.sendmsg([content], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([kind]))])

    def reset(self):
        """Ends the connection by a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
