from __future__ import annotations

import pytest

from taskyard.addresses import Address, read_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("manager", Address("manager", 5555)),
        ("manager:7000", Address("manager", 7000)),
        ("tcp://manager:7000", Address("manager", 7000)),
        ("tcp://manager/", Address("manager", 5555)),
        ("[::1]:7000", Address("::1", 7000)),
        ("[::1]", Address("::1", 5555)),
        ("::1", Address("::1", 5555)),
        ("manager:", Address("manager", 5555)),
        ("ws://manager/executors", Address("manager", 5555, path="/executors")),
        ("wss://manager", Address("manager", 443, secure=True)),
        ("wss://manager:7000/", Address("manager", 7000, secure=True)),
        ("wss://[::1]/links/executors", Address("::1", 443, secure=True, path="/links/executors")),
        ("https://api.example", Address("api.example", 443, secure=True)),
        ("http://api.example", Address("api.example", 5555)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, expected: Address) -> None:
    assert read_address(text, 5555) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":7000", "manager:x", "manager:65536", "manager:-1", "[]:7000", "m:0", "m:\u00b2", ":::", "a b"),
        *("wss://", "wss:///executors", "wss://m/a b", "wss://m/?a", "manager/executors", "https://api.example/below"),
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="give host or host:port, or wss://"):
        read_address(text, 5555)


def test_the_port_where_none_is_named_depends_on_the_scheme() -> None:
    assert read_address("wss://manager", 5555, 7000).port == 7000
    assert read_address("manager", 5555, 7000).port == 5555


@pytest.mark.parametrize(
    ("address", "url", "shown"),
    [
        (Address("manager", 5555), "ws://manager:5555/", "manager:5555"),
        (Address("::1", 5555), "ws://[::1]:5555/", "[::1]:5555"),
        (Address("manager", 443, secure=True, path="/a"), "wss://manager:443/a", "wss://manager:443/a"),
    ],
)
def test_how_it_is_dialled_and_shown(address: Address, url: str, shown: str) -> None:
    assert (address.url, str(address)) == (url, shown)
