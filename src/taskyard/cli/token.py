"""`taskyard token show` and `taskyard token rotate`: the tokens of a data directory of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from taskyard.cli.exits import Exit
from taskyard.cli.options import configured
from taskyard.cli.say import say

app = App(name="token", help="Show or renew the tokens.", help_format="plaintext")

DataDir = Annotated[Path | None, Parameter(help="The data directory; also TASKYARD_DATA_DIR.")]
Json = Annotated[bool, Parameter(help="Print JSON.")]


@app.command
def show(
    *,
    reveal: bool = False,
    kind: Literal["user", "executor"] | None = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Print where the tokens are; their values only with --reveal.

    Parameters
    ----------
    reveal
        Print the newest tokens themselves.
    kind
        Only this one.
    """
    from taskyard import tokens
    from taskyard.cli import show as shown
    from taskyard.settings import Settings

    settings = configured(Settings, data_dir=data_dir)
    path = settings.data_dir / tokens.FILE_NAME
    found = tokens.load(settings.data_dir)
    if found is None:
        say(f"there are no tokens in {settings.data_dir} yet: 'taskyard token rotate' makes them")
        return Exit.NOT_FOUND
    kinds = (kind,) if kind else tokens.KINDS
    newest = {one: valid[0].value for one in kinds if (valid := getattr(found, one))}
    if not newest:
        say(f"there is no {kind} token here: the environment gives the other one alone")
        return Exit.NOT_FOUND
    told = {"path": str(path)} | (newest if reveal else {})
    if json:
        shown.json(told)
    elif reveal and kind:
        shown.line(told[kind])
    else:
        shown.facts(told.items())
    return Exit.OK


@app.command
def rotate(*, overlap: float = 3600.0, data_dir: DataDir = None, json: Json = False) -> None:
    """Make new tokens.

    Components that run take them up by themselves; what has the old ones must get the new ones before the overlap is over.

    Parameters
    ----------
    overlap
        Seconds for which the old tokens stay valid.
    """
    from taskyard import tokens
    from taskyard.cli import show as shown
    from taskyard.settings import Settings

    settings = configured(Settings, data_dir=data_dir)
    tokens.rotate(settings.data_dir, overlap)
    path = settings.data_dir / tokens.FILE_NAME
    if json:
        shown.json({"path": str(path), "overlap": overlap})
    else:
        shown.line(f"new tokens are in {path}; the old ones stay valid for {shown.duration(overlap)}")
