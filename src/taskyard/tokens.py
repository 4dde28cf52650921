"""The two tokens of a data directory: the users' and the executors'.

They live in ``tokens.json`` (mode 0600) of the data directory, or come from ``TASKYARD_USER_TOKEN`` and
``TASKYARD_EXECUTOR_TOKEN`` (or the files that ``TASKYARD_USER_TOKEN_FILE`` and ``TASKYARD_EXECUTOR_TOKEN_FILE`` name).
During a rotation two of each are valid.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from pathlib import Path

import msgspec

from taskyard.errors import InvalidInput
from taskyard.folders import make_private

FILE_NAME = "tokens.json"
KINDS = ("user", "executor")
#: Seconds for which an old token may stay valid: a year.
LONGEST_OVERLAP = 366 * 86400.0


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """``valid_until`` is in seconds since the epoch, None for ever."""

    value: str
    valid_until: float | None = None

    def __repr__(self) -> str:
        return f"Token(..., valid_until={self.valid_until})"


class Tokens(msgspec.Struct, frozen=True):
    """The newest token of a kind stands first."""

    user: tuple[Token, ...]
    executor: tuple[Token, ...]

    def accepts_user(self, presented: str, now: float) -> bool:
        return _accepts(self.user, presented, now)

    def accepts_executor(self, presented: str, now: float) -> bool:
        return _accepts(self.executor, presented, now)


def _accepts(tokens: tuple[Token, ...], presented: str, now: float) -> bool:
    given = presented.encode("utf-8", "surrogateescape")
    matches = [
        hmac.compare_digest(given, token.value.encode())
        for token in tokens
        if token.valid_until is None or now < token.valid_until
    ]
    return any(matches)


class TokenGate:
    """Says whether a presented token is valid, and follows a rotation while the process runs."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE_NAME
        self._data_dir = data_dir
        self._read_at: int | None = None
        self._tokens: Tokens | None = None

    def accepts_user(self, presented: str) -> bool:
        tokens = self._current()
        return tokens is not None and tokens.accepts_user(presented, time.time())

    def accepts_executor(self, presented: str) -> bool:
        tokens = self._current()
        return tokens is not None and tokens.accepts_executor(presented, time.time())

    def _current(self) -> Tokens | None:
        try:
            changed_at: int | None = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            changed_at = None
        if self._tokens is None or changed_at != self._read_at:
            self._tokens, self._read_at = load(self._data_dir), changed_at
        return self._tokens


def load(data_dir: Path) -> Tokens | None:
    """The tokens of the environment and of the data directory; None where there are none. ``InvalidInput`` where the file
    cannot be read or others may read it."""
    path = data_dir / FILE_NAME
    stored: Tokens | None = None
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InvalidInput(f"{path} can be read by others: run 'chmod 600 {path}'")
            stored = msgspec.json.decode(file.read(), type=Tokens)
    except FileNotFoundError:
        pass
    except PermissionError as error:
        raise InvalidInput(f"{path} cannot be read by this user: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{path} is not a token file of ours ({error}): remove it and rotate") from error
    given = {kind: from_environment(kind) for kind in KINDS}
    if stored is None and not any(given.values()):
        return None
    return Tokens(
        **{kind: (Token(value),) if (value := given[kind]) else getattr(stored, kind, ()) for kind in KINDS},
    )


def load_or_make(data_dir: Path) -> Tokens:
    """The tokens, made at the first start."""
    existing = load(data_dir)
    if existing is not None:
        return existing
    try:
        return _write(data_dir, Tokens(user=(_fresh(),), executor=(_fresh(),)), exclusive=True)
    except FileExistsError:  # another component of this data directory was faster
        made = load(data_dir)
        assert made is not None
        return made


def rotate(data_dir: Path, overlap: float) -> Tokens:
    """New tokens; the old ones stay valid for ``overlap`` seconds. ``InvalidInput`` where that is no length of time."""
    if not 0 <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"overlap: {overlap:g} is not between 0 and {LONGEST_OVERLAP:.0f} seconds")
    now = time.time()
    old = load_or_make(data_dir)

    def turned(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        return (_fresh(), *(Token(one.value, now + overlap) for one in tokens[:1]))

    return _write(data_dir, Tokens(user=turned(old.user), executor=turned(old.executor)))


def from_environment(kind: str) -> str:
    """The token of a kind that the environment gives, or nothing."""
    name = f"TASKYARD_{kind.upper()}_TOKEN"
    if value := os.environ.get(name, ""):
        return value
    path = os.environ.get(f"{name}_FILE", "")
    try:
        return Path(path).read_text().strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}, which {name}_FILE names, cannot be read: {error}") from error


def _fresh() -> Token:
    return Token(secrets.token_urlsafe(32))


def _write(data_dir: Path, tokens: Tokens, *, exclusive: bool = False) -> Tokens:
    make_private(data_dir)
    path = data_dir / FILE_NAME
    staged = data_dir / f".{FILE_NAME}.{secrets.token_hex(8)}"
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(tokens)))
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(staged, path)
        else:
            os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    return tokens
