"""A model hub on loopback, as far as huggingface_hub asks for one."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """Repositories by name, each a folder; `asked` are the paths that were asked for."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories, self.asked = repositories, list[str]()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/([^/]+))?", path):
            if match[1] not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            if match[3] not in (None, "main", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            names = self._files(match[1])
            info = {"id": match[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return 200, {}, json.dumps(info).encode()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(/.*)?", path):
            files = self.repositories[match[1]]
            listed = [
                {"type": "file", "path": name, "size": (files / name).stat().st_size, "oid": "0" * 40}
                for name in self._files(match[1])
            ]
            return 200, {}, json.dumps(listed).encode()
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if match[1] not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound"}, b""
            file = self.repositories[match[1]] / match[3]
            if not file.is_file():
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            content = file.read_bytes()
            etag = hashlib.sha1(content).hexdigest()
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}, content
        return 404, {}, b"{}"

    def _files(self, repository: str) -> list[str]:
        folder = self.repositories[repository]
        return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond(with_body=True)

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def _respond(self, with_body: bool) -> None:
            status, headers, content = hub.answer(unquote(urlsplit(self.path).path))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
