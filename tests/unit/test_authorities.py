from __future__ import annotations

from pathlib import Path

import pytest

from taskyard.authorities import trusted
from taskyard.errors import InvalidInput
from tests.certificates import make_certificate


def test_those_of_the_environment_are_trusted_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(tmp_path).certificate))
    (authority,) = trusted().get_ca_certs()
    assert authority["subject"] == ((("commonName", "localhost"),),)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_any_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(InvalidInput, match=r"SSL_CERT_FILE \(.*authorities\.pem\)"):
        trusted()
