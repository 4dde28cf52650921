"""Whose certificates are trusted, by everything of ours that connects by TLS."""

from __future__ import annotations

import os
import ssl

from taskyard.errors import InvalidInput


def distrust(error: BaseException | None) -> str:
    """Why the certificate of a peer is not trusted, where that is behind an error; else empty."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return "" if error is None else f"not trusted ({error.verify_message}): SSL_CERT_FILE names a file of authorities"


def trusted() -> ssl.SSLContext:
    """The authorities that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names, else those of this machine; read again each time, as
    they are renewed too. ``InvalidInput`` where there are none in that file."""
    import httpx2  # knows where they are, whoever has built this Python; not needed without TLS

    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        file = os.environ.get("SSL_CERT_FILE", "")
        raise InvalidInput(f"no certificates can be read from SSL_CERT_FILE ({file}): {error}") from error
