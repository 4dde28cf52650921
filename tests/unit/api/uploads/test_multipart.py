"""Forms, however they are cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.api.uploads.multipart import MultipartForm, PartBegan, PartData, PartEnded
from taskyard.errors import InvalidInput

BOUNDARY = "X1"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition: str, content: bytes, *more: str) -> bytes:
    lines = [f"--{BOUNDARY}", *more, f"Content-Disposition: {disposition}", "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def parts(body: bytes, cuts: list[int]) -> list[tuple[str, str | None, bytes]]:
    """Field, file name and content of each part, read in pieces."""
    form = MultipartForm(TYPE)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    found: list[tuple[str, str | None, bytes]] = []
    begun: PartBegan | None = None
    content = b""
    for start, end in pairwise(places):
        for event in form.feed(body[start:end]):
            if isinstance(event, PartBegan):
                begun, content = event, b""
            elif isinstance(event, PartData):
                content += event.data
            else:
                assert isinstance(event, PartEnded)
                assert begun is not None
                found.append((begun.field, begun.filename, content))
    form.finish()
    return found


@given(
    st.lists(st.integers(0, 5000), max_size=20),
    st.lists(st.binary(max_size=60) | st.just(b"\r\n--X") | st.just(b"\r\n--X1x"), min_size=1, max_size=4),
)
def test_pieces_do_not_matter(cuts: list[int], contents: list[bytes]) -> None:
    contents = [content for content in contents if b"\r\n--X1" not in b"\r\n" + content]
    body = b"".join(part(f'form-data; name="f{i}"; filename="n{i}"', content) for i, content in enumerate(contents))
    expected = [(f"f{i}", f"n{i}", content) for i, content in enumerate(contents)]
    if expected:
        assert parts(body + END, cuts) == expected


@pytest.mark.parametrize(
    ("disposition", "field", "filename"),
    [
        ('form-data; name="cmd"', "cmd", None),
        ("form-data; name=cmd", "cmd", None),
        ('form-data; name="f"; filename="ü ö.py"', "f", "ü ö.py"),
        ('form-data; name="f"; filename="a\\"b.py"', "f", 'a"b.py'),
        ('form-data; name="f"; filename="a%22b%0d%0A%41.py"', "f", 'a"b\r\n%41.py'),
        ('form-data; name="f"; filename="dir/a.py"', "f", "dir/a.py"),
        ('form-data; name="f"; filename=""', "f", ""),
    ],
)
def test_names(disposition: str, field: str, filename: str | None) -> None:
    body = part(disposition, b"x", "Content-Type: text/x-python", "X-Other: 1") + END
    assert parts(body, []) == [(field, filename, b"x")]


def test_one_part_does_not_lend_its_name_to_the_next() -> None:
    body = part('form-data; name="a"', b"1") + f"--{BOUNDARY}\r\nX: y\r\n\r\n2\r\n".encode() + END
    with pytest.raises(InvalidInput, match="no name"):
        parts(body, [])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "middle"),
        (b"--X1\r\n", "middle"),
        (part('form-data; name="a"', b"1"), "middle"),
        (b"no form", "cannot be read"),
        (part("form-data", b"1") + END, "no name"),
        (b'--X1\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n' + END, "UTF-8"),
        (b"--X1\r\n" + b"A" * 100_000, "cannot be read"),
    ],
)
def test_broken_forms(body: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parts(body, [])


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 300])
def test_odd_boundaries(content_type: str) -> None:
    with pytest.raises(InvalidInput):
        MultipartForm(content_type)
