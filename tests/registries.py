"""A registry of images on this host, with one image and one password, that counts who asks at once."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.engines import root_file_system

USER = "carrier"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """What it holds and what it has seen. Every name is the same image."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.address = ""
        # How long each layer takes to come.
        self.delay_seconds = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._blobs: dict[str, bytes] = {}
        self._bodies: dict[str, bytes] = {}

    def manifest(self, name: str) -> bytes:
        """Each name has a layer of its own, so that each is fetched."""
        if name not in self._bodies:
            layer = root_file_system(f"name of the image: {name}\n")
            packed = gzip.compress(layer, 1, mtime=0)
            configuration = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": {"Cmd": ["sh"]},
                    "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
                }
            ).encode()
            kind = "application/vnd.docker.container.image.v1+json"
            layer_kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
            self._bodies[name] = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                    "config": self._keep(kind, configuration),
                    "layers": [self._keep(layer_kind, packed)],
                }
            ).encode()
        return self._bodies[name]

    def _keep(self, kind: str, data: bytes) -> dict[str, Any]:
        self._blobs[_digest(data)] = data
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}

    def blob(self, digest: str) -> bytes | None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay_seconds)
        with self._lock:
            self._at_once -= 1
        return self._blobs.get(digest)


@contextmanager
def registry(password: str) -> Iterator[Registry]:
    found = Registry(password)
    expected = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != expected:
                self._reply(401, b"{}", {"WWW-Authenticate": 'Basic realm="images"'})
                return
            parts = self.path.split("/")
            if parts[1:] == ["v2", ""]:
                self._reply(200, b"{}")
            elif "manifests" in parts:
                body = found.manifest("/".join(parts[2:-2]))
                kind = "application/vnd.docker.distribution.manifest.v2+json"
                self._reply(
                    200, body, {"Content-Type": kind, "Docker-Content-Digest": _digest(body)}
                )
            elif (blob := found.blob(parts[-1])) is not None:
                self._reply(200, blob)
            else:
                self._reply(404, b"{}")

        do_HEAD = do_GET  # noqa: N815  as the server calls it

        def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
