"""The store on SQLite: one file, one writer."""

from taskyard.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
