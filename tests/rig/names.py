"""A name server and an HTTPS receiver on loopback, for what needs names and certificates."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from pathlib import Path


class NameServer:
    """Answers every question for an A record with one address, on port 53 of a loopback address.

    DNS by hand (RFC 1035, section 4): the question is copied, one answer points back at it.
    """

    def __init__(self, listen: str, answer: str) -> None:
        self.asked: set[str] = set()
        self._answer = socket.inet_aton(answer)
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
            self.asked.add(".".join(labels))
            question = query[12 : at + 5]
            found = question[-4:-2] == b"\0\1"
            head = query[:2] + b"\x81\x80\0\1" + bytes([0, found]) + b"\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + self._answer if found else b""
            self._socket.sendto(head + question + record, asker)

    def stop(self) -> None:
        """Answer no more."""
        self._socket.close()


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
