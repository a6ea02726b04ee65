"""The command line every simulator has: start the servers, print one line of JSON facts, run until told to end."""

import argparse
import json
import secrets
import signal
import sys
import tempfile
import threading

from . import control, rest, tls


class Trap(rest.Array):
    """The other host that a redirect points to; nobody should ever come here."""

    def routes(self):
        return []

    def no_route(self, request):
        return rest.Reply(200, {"trapped": True})


def parser(description):
    """Options common to all simulators."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--root", required=True, help="directory that stands for the mounted file system")
    options.add_argument("--port", type=int, default=0, help="HTTPS port on 127.0.0.1; 0 takes a free one")
    options.add_argument("--control-port", type=int, default=0, help="port of the control door")
    options.add_argument("--control-secret", default="", help="secret of the control door; made up when absent")
    options.add_argument("--certificates", help="folder for the certificates; made there unless they exist")
    options.add_argument("--until-eof", action="store_true", help="end when standard input does, with whoever started it")
    options.add_argument("--plain", action="store_true", help="HTTP instead of HTTPS")
    options.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="change a setting")
    return options


def run(array, options):
    """Serves until a signal ends it."""
    for pair in options.set:
        name, _, value = pair.partition("=")
        if name not in array.settings:
            sys.exit(f"unknown setting {name}; there are {sorted(array.settings)}")
        array.settings[name] = json.loads(value)
    # Removed with the object, when the process ends.
    temporary = None if options.certificates else tempfile.TemporaryDirectory(prefix="simulated-array-")
    certificates = tls.make_certificates(options.certificates or temporary.name)
    server = rest.TlsServer(array, certificates, options.port, options.plain)
    trap = rest.TlsServer(Trap(), certificates, plain=options.plain)
    server.trap_url = trap.url
    secret = options.control_secret or secrets.token_hex(16)
    door = control.control_server(array, server, trap, secret, options.control_port)
    for each in (server, trap, door):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    facts = {
        "url": server.url,
        "control": f"http://127.0.0.1:{door.server_address[1]}",
        "control_secret": secret,
        "ca": str(certificates / "ca.pem"),
        "fingerprints": {kind: tls.fingerprint(certificates, kind) for kind in tls.KINDS},
    }
    print(json.dumps(facts), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    if options.until_eof:
        sys.stdin.read()
    else:
        threading.Event().wait()
