"""Checks and unpacks a zip file. Nothing is written where a member says: members become files of the repository."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from taskyard.api.names import check_path
from taskyard.api.uploads.staging import WRITE_SIZE, Content, Staging
from taskyard.errors import InvalidInput, TooLarge
from taskyard.task.model import FileRef

_ENCRYPTED = 0x1
_END = b"PK\x05\x06"
_END_SIZE = 22
_LONGEST_COMMENT = 0xFFFF
#: Bytes of the list of members per member that is allowed: a header, a path of ours, and some extra fields.
_ENTRY_SIZE = 4096


@dataclass(frozen=True)
class ArchiveLimits:
    """``max_size`` bytes unpacked, all members together; ``max_ratio`` of that to the packed size."""

    max_files: int
    max_size: int
    max_ratio: float


def unpack(packed: Path, staging: Staging, limits: ArchiveLimits) -> list[FileRef]:
    """The files of a zip. Blocks. ``InvalidInput`` and ``TooLarge`` name the member."""
    try:
        with packed.open("rb") as file:
            _check_directory_size(file, limits)
            with zipfile.ZipFile(file) as archive:
                members = check_members(archive.infolist(), packed.stat().st_size, limits)
                return [_unpack_member(archive, member, staging) for member in members]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
        raise InvalidInput(f"the zip cannot be unpacked: {error}") from error


def check_members(members: Sequence[zipfile.ZipInfo], packed_size: int, limits: ArchiveLimits) -> list[zipfile.ZipInfo]:
    """The members that are files. Pure. ``InvalidInput``, ``TooLarge``."""
    files: list[zipfile.ZipInfo] = []
    total = 0
    for member in members:
        name = member.filename
        if member.flag_bits & _ENCRYPTED:
            raise InvalidInput(f"member {name!r} of the zip is encrypted: pack it without a password")
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InvalidInput(f"member {name!r} of the zip is a link or a special file: pack plain files only")
        if member.is_dir():
            check_path(name.removesuffix("/"))
            continue
        try:
            check_path(name)
        except InvalidInput as error:
            raise InvalidInput(f"member {name!r} of the zip: {error.message}") from error
        files.append(member)
        total += member.file_size
        if len(files) > limits.max_files:
            raise TooLarge(f"the zip has more than {limits.max_files} files: {name!r} is one too many")
        if total > limits.max_size:
            raise TooLarge(f"the zip unpacks to more than {limits.max_size} bytes: {name!r} is over the limit")
        if total > limits.max_ratio * packed_size:
            raise TooLarge(f"the zip unpacks to more than {limits.max_ratio:g} times its size, at member {name!r}")
    return files


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, staging: Staging) -> FileRef:
    with archive.open(member) as source:
        # Where it is longer than it says, `zipfile` stops there and finds that its checksum is wrong.
        if member.file_size <= staging.inline_room:
            content = staging.keep(source.read())
        else:
            staged = staging.stage()
            while data := source.read(WRITE_SIZE):
                staged.write(data)
            staged.close()
            content = Content(staged.size, staged.sha256)
    return content.at(member.filename, executable=bool(member.external_attr >> 16 & 0o100))


def _check_directory_size(file: BinaryIO, limits: ArchiveLimits) -> None:
    """`zipfile` reads the whole list of members into memory: see how long it is first."""
    size = file.seek(0, 2)
    file.seek(max(size - _END_SIZE - _LONGEST_COMMENT, 0))
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0:
        raise InvalidInput("the file in the part 'zip' is not a zip file")
    entries, directory_size = struct.unpack_from("<HI", tail, place + 10)
    # In a zip of the 64-bit kind both are all ones.
    if entries > 2 * limits.max_files or directory_size > limits.max_files * _ENTRY_SIZE:
        raise TooLarge(f"the zip lists {entries} members or more: {limits.max_files} files are the most")
    file.seek(0)
