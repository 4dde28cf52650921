"""Ranges of bytes (RFC 9110, section 14). Pure. One range at most is served: of several, the whole is sent."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*\Z")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the byte after the last, of ``size`` bytes; None where the whole is to be sent. 416 where no byte of
    the range is there."""
    match = _RANGE.match(header) if header is not None else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(size - int(match[2]), 0), size
    else:
        start, end = int(match[1]), size if match[2] == "" else min(int(match[2]) + 1, size)
        if match[2] != "" and int(match[2]) < start:
            return None
    if start >= size or end <= start:
        raise HTTPException(
            416, f"there are {size} bytes, and none of them is in that range", {"content-range": f"bytes */{size}"}
        )
    return start, end


def range_headers(part: tuple[int, int], size: int) -> dict[str, str]:
    """Headers of an answer with a part of ``size`` bytes."""
    start, end = part
    return {"content-range": f"bytes {start}-{end - 1}/{size}", "content-length": str(end - start)}
