"""Packs files of the repository into a zip that is sent while it is made: memory stays flat, whatever their size."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_PIECE = 256 << 10
_PERMISSIONS = 0o644


def zip_pieces(members: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """The bytes of a zip with these files at these paths. Not compressed: artifacts are often so already. Blocks."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, place in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = _PERMISSIONS << 16
            with place.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    yield sink.taken()
    yield sink.taken()


class _Sink:
    """What `zipfile` writes to: it cannot be sought in, so that sizes follow each member instead of preceding it."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes, /) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._written)
        self._written.clear()
        return taken
