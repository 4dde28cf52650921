"""A certificate for this machine's loopback that no authority has signed: who trusts it has it as SSL_CERT_FILE."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Certificate:
    """Two files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key


def make_certificate(folder: Path) -> Certificate:
    """One for `localhost` and 127.0.0.1, valid for a day. Skips the test where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run([openssl, "req", "-x509", *kind, *names, *files], check=True, capture_output=True, timeout=60)
    return made
