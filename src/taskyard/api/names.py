"""Names, ids and paths that users give, or that we make for them. Pure."""

from __future__ import annotations

import base64
import re

from taskyard.errors import InvalidInput

NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
LONGEST_PATH = 1024
LONGEST_PART = 255
_NAME = re.compile(NAME_PATTERN[:-1] + r"\Z")
_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}\Z", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_name(name: str) -> str:
    """``name``, if a task may be called so. ``InvalidInput``."""
    if _NAME.match(name) is None:
        raise InvalidInput(
            "a name has 1 to 100 letters, digits, '.', '_' or '-', and begins with a letter or digit: "
            f"{name[:120]!r} does not"
        )
    if _UUID.match(name):
        raise InvalidInput(f"{name!r} looks like a task's id: choose another name")
    return name


def made_name(stem: str, random: bytes) -> str:
    """A name for a task without one: the script's stem and 6 base32 digits out of 4 bytes or more of ``random``."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:93] or "task"
    return f"{readable}-{base64.b32encode(random).decode().lower()[:6]}"


def task_id(now: float, random: bytes) -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 bits out of 10 bytes of ``random``."""
    number = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(random[:10])
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_path(path: str) -> str:
    """``path``, if a file may lie there in a task's working directory: relative, normal, below it. ``InvalidInput``."""
    parts = path.split("/")
    if not path or len(path.encode("utf-8", "surrogatepass")) > LONGEST_PATH:
        raise InvalidInput(f"a file's path has 1 to {LONGEST_PATH} bytes: {path[:60]!r} has not")
    if path.startswith("/"):
        raise InvalidInput(f"{path!r} is an absolute path: give one relative to the task's working directory")
    if ".." in parts:
        raise InvalidInput(f"{path!r} leads out of the task's working directory")
    if "" in parts or "." in parts:
        raise InvalidInput(f"{path!r} is not a plain path: leave '.' and double or trailing slashes out")
    if _CONTROL.search(path) or not _is_unicode(path):
        raise InvalidInput(f"{path!r} holds control characters, or bytes that are no text")
    if any(len(part.encode()) > LONGEST_PART for part in parts):
        raise InvalidInput(f"{path[:60]!r} has a part of more than {LONGEST_PART} bytes")
    return path


def check_paths(paths: list[str]) -> None:
    """``InvalidInput`` where two files would lie at one path, or one where another needs a folder."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise InvalidInput(f"{path!r} is there twice: give each file a path of its own")
        seen.add(path)
    for path in paths:
        folder = path
        while folder := folder.rpartition("/")[0]:
            if folder in seen:
                raise InvalidInput(f"{folder!r} is a file and the folder of {path!r} at once")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
