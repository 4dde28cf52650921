"""On loopback a bare curl needs no token; a web page in the user's browser gets nothing."""

from __future__ import annotations

import pytest

from tests.acceptance.processes import Yard

JSON = ("-H", "Content-Type: application/json", "-d", '{"command": "-c 1"}')


def count(yard: Yard) -> int:
    status, body = yard.curl_json("/api/v2/tasks")
    assert status == 200
    return len(body["tasks"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_the_names_of_this_machine_are_accepted(shared_yard: Yard, host: str) -> None:
    assert shared_yard.curl("/api/v1/tasks", "-H", f"Host: {host}:{shared_yard.http_port}")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "169.254.1.1"])
def test_a_name_that_was_rebound_to_this_machine_is_refused(shared_yard: Yard, host: str) -> None:
    before = count(shared_yard)
    for path in ("/api/v1/tasks", "/api/v2/tasks", "/metrics"):
        assert shared_yard.curl(path, "-H", f"Host: {host}")[0] in (401, 403)
    assert shared_yard.curl("/api/v2/tasks", "-H", f"Host: {host}", *JSON)[0] in (401, 403)
    assert count(shared_yard) == before


@pytest.mark.parametrize(
    "header",
    [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost.evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
def test_a_request_of_another_site_is_refused(shared_yard: Yard, header: str) -> None:
    before = count(shared_yard)
    assert shared_yard.curl("/api/v2/tasks", "-H", header, *JSON)[0] in (401, 403)
    assert shared_yard.curl("/api/v1/tasks/cross", "-H", header, "-F", "file=@/dev/null")[0] in (401, 403)
    assert count(shared_yard) == before


def test_a_form_of_another_site_is_refused_before_its_body_is_read(shared_yard: Yard) -> None:
    status, body = shared_yard.curl(
        "/api/v1/tasks/cross",
        "-H",
        "Origin: https://evil.example",
        "-F",
        "file=@/bin/sh",
        "-F",
        "cmd=sh",
        "-F",
        "rt=None",
    )
    assert status in (401, 403)
    assert b"token" in body or b"Origin" in body


@pytest.mark.parametrize("port", ["executor_port", "api_port"])
def test_a_browsers_web_socket_is_refused_on_both_links(shared_yard: Yard, port: str) -> None:
    upgrade = (
        *("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13"),
        *("-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "-H", "Origin: http://127.0.0.1"),
    )
    assert shared_yard.curl("/", *upgrade, port=getattr(shared_yard, port))[0] == 403


def test_a_wrong_token_is_refused_even_on_loopback(shared_yard: Yard) -> None:
    assert shared_yard.curl("/api/v1/tasks", "-H", "Authorization: Bearer wrong")[0] == 401


def test_with_require_token_loopback_needs_one_too(yard: Yard) -> None:
    api = yard.components[1]
    api.terminate()
    yard.api(TASKYARD_REQUIRE_TOKEN="true")
    assert yard.curl("/api/v1/tasks")[0] == 401
    done = yard.cli("token", "show", "--reveal", "--json")
    assert done.returncode == 0, done.stderr
    assert yard.cli("ls", "--json").returncode == 0  # the command line finds it in the data directory
