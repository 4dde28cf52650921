"""Sentences for people, on stderr: stdout is kept for what was asked for."""

from __future__ import annotations

import sys


def say(sentence: str) -> None:
    """What went wrong and what to do, or what should be known."""
    sys.stderr.write(f"taskyard: {sentence.strip()}\n")
    sys.stderr.flush()
