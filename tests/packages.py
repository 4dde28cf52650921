"""Packages made on the spot, and an index of them on this machine: no test needs another."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(name: str, version: str, code: str = "", requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """File name and content of a package with one module; without ``code`` it has a ``VERSION``."""
    stem = f"{name}-{version}"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    members = {
        f"{name}.py": code or f"VERSION = {version!r}\n",
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for path, text in members.items():
            file.writestr(path, text)
    return f"{stem}-py3-none-any.whl", content.getvalue()


def sdist(name: str, version: str, backend: str) -> tuple[str, bytes]:
    """The same as a source distribution whose build is ``backend``: a module that needs nothing to be installed."""
    stem = f"{name}-{version}"
    project = f'[project]\nname = "{name}"\nversion = "{version}"\ndynamic = ["dependencies"]\n'
    project += '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    members = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": project,
        "backend.py": backend,
    }
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for path, text in members.items():
            member = tarfile.TarInfo(f"{stem}/{path}")
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
    return f"{stem}.tar.gz", content.getvalue()


class Index:
    """A package index. ``asked`` are the paths that were asked for; ``status`` is answered to all where it is not 200. Answers
    wait for ``open``."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.url = ""

    @property
    def variables(self) -> dict[str, str]:
        """What tells uv to use it, and nothing else."""
        return {"UV_DEFAULT_INDEX": self.url, "UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "0"}

    def answer(self, path: str) -> tuple[int, str, bytes]:
        self.asked.append(path)
        self.reached.set()
        self.open.wait(60)
        if self.status != 200:
            return self.status, "text/plain", b""
        name = path.strip("/").rpartition("/")[2]
        if name in self.files:
            return 200, "application/octet-stream", self.files[name]
        links = [file for file in self.files if file.startswith(f"{name}-")]
        if not links:
            return 404, "text/plain", b""
        return 200, "text/html", "".join(f'<a href="/files/{file}">{file}</a>\n' for file in links).encode()


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Index]:
    """Serve an index of these files."""
    index = Index(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = index.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        index.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        try:
            yield index
        finally:
            index.open.set()
            server.shutdown()
            thread.join()
