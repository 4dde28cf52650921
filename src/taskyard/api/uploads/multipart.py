"""Parses ``multipart/form-data`` piece by piece. Pure: bytes in, events out; nothing is kept beyond one piece."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from taskyard.errors import InvalidInput

MEDIA_TYPE = "multipart/form-data"
_ESCAPED = re.compile("%(22|0A|0D)", re.IGNORECASE)


@dataclass(frozen=True)
class PartBegan:
    """``filename`` is None where the part is a plain field."""

    field: str
    filename: str | None


@dataclass(frozen=True)
class PartData:
    data: bytes


@dataclass(frozen=True)
class PartEnded:
    pass


Event: TypeAlias = PartBegan | PartData | PartEnded


class MultipartForm:
    """``InvalidInput`` from any method: the form is broken, and says how."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidInput("the Content-Type of the form names no boundary: let your HTTP client set it")
        self._events: list[Event] = []
        self._header = bytearray()
        self._value = bytearray()
        self._disposition: str | None = None
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidInput(f"the form cannot be read: {error}") from error

    def feed(self, data: bytes) -> list[Event]:
        """What this piece of the body tells."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidInput(f"the form cannot be read: {error}") from error
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """The body has ended."""
        if not self._complete:
            raise InvalidInput("the form ends in the middle: its last boundary is missing")

    def _on_part_begin(self) -> None:
        self._disposition = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            # Latin-1 keeps the bytes as they are, so that they can be read as UTF-8 later.
            self._disposition = self._value.decode("latin-1")
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name")
        if field is None:
            raise InvalidInput("a part of the form has no name in its Content-Disposition")
        filename = options.get(b"filename")
        self._events.append(PartBegan(_text(field), None if filename is None else _text(filename)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _on_part_end(self) -> None:
        self._events.append(PartEnded())

    def _on_end(self) -> None:
        self._complete = True


def _text(value: bytes) -> str:
    """Names in a form are UTF-8, with quotes and line ends escaped as the HTML standard says."""
    try:
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value.decode())
    except UnicodeDecodeError as error:
        raise InvalidInput("a name in the form is not UTF-8") from error
