"""Writes artifacts to disk as they arrive, under a temporary name until they are complete and their hash is right."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from pathlib import Path
from urllib.parse import quote

from taskyard.client.http import Http, segment
from taskyard.client.records import Artifact
from taskyard.errors import InvalidInput, Unavailable
from taskyard.task.paths import is_inside


def place(folder: Path, artifact: Artifact) -> Path:
    """Where an artifact belongs below ``folder``. The path comes from a task: it must not lead out of the folder."""
    if not is_inside(artifact.path):
        raise InvalidInput(
            f"the artifact {artifact.path!r} has a path that leads out of the folder: it was not written"
        )
    return folder / artifact.path


async def download(http: Http, task: str, artifact: Artifact, target: Path) -> None:
    """Replace ``target`` by the artifact; an incomplete one never stands there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        with staged.open("xb") as file:
            async with http.stream(f"tasks/{segment(task)}/artifacts/{quote(artifact.path)}") as response:
                async for piece in response.aiter_bytes():
                    digest.update(piece)
                    await asyncio.to_thread(file.write, piece)
        if digest.hexdigest() != artifact.sha256:
            raise Unavailable(f"the artifact {artifact.path!r} arrived damaged: try again")
        os.replace(staged, target)
    finally:
        staged.unlink(missing_ok=True)
