"""docs/http-api.md and the code name the same routes and limits."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.routing import APIRoute

from taskyard.api.app import ROUTERS
from taskyard.settings import ApiSettings

PAGE = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text()


def test_every_route_is_described() -> None:
    described = re.findall(r"^\| `([A-Z]+ /\S*)` \|", PAGE, re.MULTILINE)
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    served = {f"{method} {re.sub(':[a-z]+', '', route.path)}" for route in routes for method in route.methods or ()}
    assert len(described) == len(set(described))
    assert set(described) == served


def test_limits_are_settings() -> None:
    table = PAGE[PAGE.index("## Limits") :]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(named) > 5
    assert [name for name in named if name not in ApiSettings.model_fields] == []
