"""Who is to blame for what uv says, and what it is given of our environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskyard.executor import uv
from taskyard.executor.uv import BuildFailed, CannotBuild


@pytest.mark.parametrize(
    "said",
    [
        "error: Request failed after 3 retries in 12.7s\n  cause: tcp connect error",
        "error: Failed to fetch: http://localhost/a/\n  cause: HTTP status server error (503 Service Unavailable)",
        "error: Failed to fetch: http://localhost/a/\n  cause: HTTP status client error (401 Unauthorized)",
        "error: No solution found\n\nhint: An index URL (u) could not be queried due to a lack of valid authentication (401)",
        "error: No solution found\n\nhint: An index (u) returned a 403 Forbidden error.",
        "error: failed to write\n  cause: No space left on device (os error 28)",
    ],
)
def test_the_machine(said: str) -> None:
    assert isinstance(uv.failure(said), CannotBuild)


@pytest.mark.parametrize(
    "said",
    ["error: No solution found when resolving dependencies", "error: HTTP status client error (404 Not Found)", ""],
)
def test_the_task(said: str) -> None:
    assert isinstance(uv.failure(said), BuildFailed)


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    message = str(uv.failure(f"first\n{'x' * 10_000}\nlast"))
    assert "first" in message
    assert message.endswith("last")
    assert len(message) < 4_000


def test_no_token_and_nothing_of_ours_is_given(tmp_path: Path) -> None:
    own = {
        "PATH": "/bin",
        "TASKYARD_TOKEN": "x",
        "UV_DEFAULT_INDEX": "i",
        "PIP_CERT": "c",
        "https_proxy": "p",
        "HOME": "h",
    }
    given = uv.environment(own | {"UV_CACHE_DIR": "/shared"}, tmp_path)
    assert given["UV_DEFAULT_INDEX"] == "i"
    assert (given["PIP_CERT"], given["https_proxy"]) == ("c", "p")
    assert given["HOME"] == str(tmp_path / "home")
    assert given["UV_CACHE_DIR"] == str(tmp_path / "cache")
    assert not any("TASKYARD" in name for name in given)
