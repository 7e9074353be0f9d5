"""A name server and an HTTPS receiver on loopback, for what needs names and certificates."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

NO_SUCH_NAME, SILENCE = "nxdomain", "silence"

Zone = dict[str, "list[str] | str | Callable[[], list[str]]"]
"""Name → its IPv4 addresses, or who makes them up for each question, or one of the above. The key
`*` stands for every other name."""


class NameServer:
    """Answers questions for A records from a zone, on port 53 of a loopback address.

    DNS by hand (RFC 1035, section 4): the question is copied, each answer points back at it.
    """

    def __init__(self, listen: str, zone: Zone) -> None:
        self.zone = zone
        self.asked: set[str] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((listen, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, asker = self._socket.recvfrom(4_096)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            name = ".".join(labels)
            self.asked.add(name)
            question = query[12 : at + 5]
            is_for_ipv4 = question[-4:-2] == b"\0\1"
            known = self.zone.get(name, self.zone.get("*", NO_SUCH_NAME))
            if known == SILENCE:
                continue
            code = b"\x81\x83" if known == NO_SUCH_NAME else b"\x81\x80"
            addresses = known() if callable(known) else known
            if isinstance(addresses, str) or not is_for_ipv4:
                addresses = []
            records = [
                b"\xc0\x0c\0\1\0\1\0\0\0\x01\0\4" + socket.inet_aton(one) for one in addresses
            ]
            head = query[:2] + code + b"\0\1" + bytes([0, len(records)]) + b"\0\0\0\0"
            self._socket.sendto(head + question + b"".join(records), asker)

    def stop(self) -> None:
        """Answer no more."""
        self._socket.close()


def asking(listen: str, folder: Path) -> list[str]:
    """A command before another one, which then asks the name server on `listen` and nobody else (in
    a mount namespace, where /etc/resolv.conf names it). Skips where that cannot be had."""
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {listen}\noptions timeout:20 attempts:1\n")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, str(resolver)]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a mount namespace cannot be made here: {tried.stderr.strip()}")
    return command


class TlsReceiver:
    """Accepts everything over TLS, with a certificate of its own making for one name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate, key = folder / "cert.pem", folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-addext", f"subjectAltName=DNS:{name}",
             "-keyout", str(key), "-out", str(self.certificate)],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        self.ids: set[str] = set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                receiver.ids.add(self.headers["webhook-id"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Accept no more."""
        self._server.shutdown()
        self._server.server_close()
