"""Certificates of a test: a CA, what it has signed, and others that nobody trusts."""

from __future__ import annotations

import http.client
import http.server
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"


def authority(folder: Path, name: str) -> None:
    """`name`.pem and `name`.key."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem")


def signed(folder: Path, name: str, by: str) -> None:
    """`name`.pem and `name`.key, for 127.0.0.1."""
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}", "-addext",
            "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr")
    openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", f"{folder}/{by}.pem", "-CAkey", f"{folder}/{by}.key", "-days", "2",
            "-copy_extensions", "copy", "-out", f"{folder}/{name}.pem")


class Server(http.server.ThreadingHTTPServer):
    """`curt`: hangs up after the handshake without a word, as clients see it when the word is lost on the way."""

    daemon_threads = True
    curt = False

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except ssl.SSLError:
                socket.socket.shutdown(request, socket.SHUT_WR)  # after the alert
                request.settimeout(5.0)
                while socket.socket.recv(request, 4096):  # closing before all is read would take the alert back
                    pass
                return
            if self.curt:
                return request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        super().finish_request(request, client_address)


class Proxy:
    """Hands on what nodes post to the SuperLink at `port`. `seen(path, request, answer)` may look at it. With `folder` it speaks TLS
    on both sides and wants certificates of clients, signed by ca.pem, as a proxy in front of a SuperLink would."""

    def __init__(self, port: int, seen=None, folder: Path | None = None, curt: bool = False) -> None:
        outgoing = ssl.create_default_context(cafile=f"{folder}/ca.pem") if folder else None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                there = http.client.HTTPSConnection("127.0.0.1", port, context=outgoing) if folder else \
                    http.client.HTTPConnection("127.0.0.1", port)
                try:
                    there.request("POST", self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"})
                    answer = there.getresponse()
                    content = answer.read()
                except OSError:
                    return self.send_error(503)
                finally:
                    there.close()
                if seen:
                    seen(self.path, dict(self.headers), body, content)
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers.get("content-type", "application/protobuf"))
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.curt = curt
        if folder:
            incoming = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            incoming.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
            incoming.load_verify_locations(f"{folder}/ca.pem")
            incoming.verify_mode = ssl.CERT_NONE if curt else ssl.CERT_REQUIRED
            self.server.socket = incoming.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
