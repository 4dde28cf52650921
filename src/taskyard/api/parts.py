"""The parts that the routes work with, and how a route gets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from taskyard.api.connector import Connector
from taskyard.api.metrics import Metrics
from taskyard.api.repository import Repository
from taskyard.api.uploads.staging import Staging
from taskyard.api.waits import Waits
from taskyard.settings import ApiSettings


@dataclass(frozen=True)
class Parts:
    settings: ApiSettings
    connector: Connector
    repository: Repository
    waits: Waits
    metrics: Metrics

    def staging(self) -> Staging:
        """Where the files of one request are kept until its commit."""
        return Staging(
            self.repository,
            self.connector,
            max_inline_file=self.settings.max_inline_file,
            max_inline_task=self.settings.max_inline_task,
        )


async def _parts(request: Request) -> Parts:
    return cast(Parts, request.app.state.parts)


#: Declared by routes that need them.
TheParts = Annotated[Parts, Depends(_parts)]
