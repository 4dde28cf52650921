"""Who may ask."""

from __future__ import annotations

import pytest

from taskyard.api.access import check_token, check_without_token, presented_token
from taskyard.errors import Forbidden, Unauthorized


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", ""),
        ("", ""),
    ],
)
def test_the_token_that_is_presented(header: str | None, token: str | None) -> None:
    assert presented_token({} if header is None else {"authorization": header}) == token


def test_a_wrong_token_is_refused() -> None:
    check_token(True)
    with pytest.raises(Unauthorized):
        check_token(False)


def test_without_a_token_only_on_loopback() -> None:
    with pytest.raises(Unauthorized):
        check_without_token({"host": "localhost"}, tokenless=False, allowed_hosts=())


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "localhost:5001"}, True),
        ({"host": "LOCALHOST"}, True),
        ({"host": "127.0.0.1:5001"}, True),
        ({"host": "[::1]:5001"}, True),
        ({"host": "yard.example"}, True),
        ({"host": "yard.example:5001"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "localhost.evil.example"}, False),
        ({"host": "[::1"}, False),
        ({"host": ""}, False),
        ({}, False),
        ({"host": "localhost:5001", "origin": "http://localhost:5001"}, True),
        ({"host": "localhost:5001", "origin": "http://localhost:8000"}, False),
        ({"host": "localhost:5001", "origin": "http://evil.example"}, False),
        ({"host": "localhost:5001", "origin": "null"}, False),
        ({"host": "localhost", "sec-fetch-site": "same-origin"}, True),
        ({"host": "localhost", "sec-fetch-site": "none"}, True),
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, False),
        ({"host": "localhost", "sec-fetch-site": "same-site"}, False),
    ],
)
def test_host_and_origin_have_to_be_ours(headers: dict[str, str], allowed: bool) -> None:
    if allowed:
        check_without_token(headers, tokenless=True, allowed_hosts=("yard.example",))
    else:
        with pytest.raises(Forbidden):
            check_without_token(headers, tokenless=True, allowed_hosts=("yard.example",))
