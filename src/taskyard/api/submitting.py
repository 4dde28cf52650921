"""Hands drafts to the manager."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from taskyard.api import command, names
from taskyard.api.connector import Connector
from taskyard.api.drafts import Draft, digest
from taskyard.api.parts import Parts
from taskyard.api.uploads.staging import Staging
from taskyard.errors import BatchInvalid, NameTaken
from taskyard.protocol.requests import IdempotencyKey, Submission, Submit, Submitted

#: How often a name that we made is made anew where it is taken.
_TRIES = 5


async def submit(parts: Parts, drafts: Sequence[Draft], staging: Staging, key: str | None = None) -> Submitted:
    """Submit tasks, all or none; their files are published first. ``NameTaken``, ``BatchInvalid``, ``KeyReused``,
    ``Unavailable``, ``StorageFull``."""
    await staging.publish()
    idempotency = IdempotencyKey(key=key, digest=digest(drafts)) if key is not None else None
    ids = [names.task_id(time.time(), os.urandom(10)) for _ in drafts]
    with parts.metrics.submit_seconds.time():
        submitted = await _submit(parts.connector, ids, drafts, idempotency)
    if not submitted.replayed:
        staging.committed()
    return submitted


async def _submit(
    connector: Connector, ids: Sequence[str], drafts: Sequence[Draft], key: IdempotencyKey | None
) -> Submitted:
    tries_left = _TRIES
    while True:
        items = tuple(_submission(task_id, draft) for task_id, draft in zip(ids, drafts, strict=True))
        tries_left -= 1
        try:
            return await connector.call(Submit(items=items, key=key))
        except (NameTaken, BatchInvalid) as error:
            if not (tries_left and _only_made_names(error, drafts)):
                raise


def _submission(task_id: str, draft: Draft) -> Submission:
    stem = command.stem(draft.spec.arguments, program=draft.spec.program)
    name = draft.name or names.made_name(stem, os.urandom(5))
    return Submission(task_id=task_id, name=name, spec=draft.spec)


def _only_made_names(error: NameTaken | BatchInvalid, drafts: Sequence[Draft]) -> bool:
    """Whether all that is wrong is that names are taken which nobody chose."""
    if isinstance(error, NameTaken):
        return all(draft.name is None for draft in drafts)
    return all(code == NameTaken.code and drafts[index].name is None for index, code, _ in error.items)
