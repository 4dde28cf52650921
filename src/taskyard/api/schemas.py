"""What version 2 takes: bodies and forms, with their bounds. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from taskyard.api.command import LONGEST_WORD, MOST_WORDS
from taskyard.api.names import LONGEST_PATH, NAME_PATTERN

_NO_NUL = r"^[^\x00]*$"
#: Seconds in a year: no run lasts longer.
LONGEST_TIMEOUT = 366 * 86400.0
LONGEST_GRACE = 3600.0
MOST_RETRIES = 1000
LARGEST_PRIORITY = 1_000_000
MOST_VARIABLES = 1000
#: Bytes of all variables together: they share Linux' room for a new process with the command.
LARGEST_ENVIRONMENT = 1 << 20
MOST_LABELS = 64
LARGEST_AMOUNT = 1e15

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PATH, pattern=_NO_NUL)]
Word = Annotated[str, StringConstraints(max_length=LONGEST_WORD, pattern=_NO_NUL)]
CommandLine = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_WORD, pattern=_NO_NUL)]
VariableName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Label = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9._/-]*$")]
LabelName = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Amount = Annotated[float, Field(ge=0.001, le=LARGEST_AMOUNT, allow_inf_nan=False)]
Size = Annotated[str, StringConstraints(max_length=20, pattern=r"^[0-9]{1,15}(\.[0-9]{1,3})?([KMGTP]i?)?B?$")]
Variables = Annotated[dict[VariableName, Word], Field(max_length=MOST_VARIABLES)]
ReturnTypeName = Literal["none", "text", "json", "file"]

_MULTIPLES = (
    {"": 1.0}
    | {letter: 10.0 ** (3 * power) for power, letter in enumerate("KMGTP", 1)}
    | {f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGTP", 1)}
)


class Input(BaseModel):
    """Base of what is taken: strict, and nothing unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class FileInput(Input):
    """A file, at a path relative to the task's working directory. Its content is a text, or base64."""

    path: Path
    content: str | None = Field(None, description="the file as text; stored as UTF-8")
    base64: str | None = Field(None, description="the file's bytes in base64; instead of `content`")

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if (self.content is None) == (self.base64 is None):
            raise ValueError("give either 'content' or 'base64'")
        return self


class SpecInput(Input):
    """What a task runs, and how. Everything has a default."""

    command: CommandLine | Annotated[list[Word], Field(min_length=1, max_length=MOST_WORDS)] | None = Field(
        None,
        description="what would follow `python`; a string is split as a POSIX shell would. "
        "Without it the only file is run",
        examples=["hello.py 6", ["-m", "package.module", "x"]],
    )
    script: str | None = Field(
        None,
        description="a script's text; stored as the file that the command begins with, else as `script.py`",
        examples=["print(40 + 2)"],
    )
    files: list[FileInput] = Field(default=[], description="further files")
    return_type: ReturnTypeName = Field(
        "none", description="what a finished task's value is: null, its stdout, its stdout parsed, its artifacts' paths"
    )
    env: Variables = Field(default={}, description="environment variables", examples=[{"LANGUAGE": "en"}])
    secrets: Variables = Field(default={}, description="environment variables whose values are never shown again")
    timeout: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="seconds that one run may take"
    )
    grace: float = Field(
        5.0, ge=0, le=LONGEST_GRACE, allow_inf_nan=False, description="seconds between SIGTERM and SIGKILL"
    )
    retries: int = Field(0, ge=0, le=MOST_RETRIES, description="further runs after the script's own failures")
    max_losses: int = Field(3, ge=0, le=MOST_RETRIES, description="further runs after failures of machines")
    priority: int = Field(0, ge=-LARGEST_PRIORITY, le=LARGEST_PRIORITY, description="higher runs earlier")
    labels: dict[LabelName, Label] = Field(
        default={}, max_length=MOST_LABELS, description="labels that the executor must have", examples=[{"zone": "b"}]
    )
    resources: dict[LabelName, Amount | Size] = Field(
        default={},
        max_length=MOST_LABELS,
        description="amounts that the executor must have free; memory in bytes, or such as '512MiB'",
        examples=[{"cpus": 0.5, "memory": "512MiB"}],
    )

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        ours = sorted(name for name in (*self.env, *self.secrets) if name.upper().startswith("TASKYARD_"))
        if ours:
            raise ValueError(f"{', '.join(ours)}: names that begin with TASKYARD_ are ours, choose others")
        twice = sorted(self.env.keys() & self.secrets.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)}: give a variable in 'env' or in 'secrets', not in both")
        return self

    @model_validator(mode="after")
    def _a_process_can_be_given_them(self) -> Self:
        sizes = {name: len(f"{name}={value}".encode()) for name, value in (*self.env.items(), *self.secrets.items())}
        if too_long := sorted(name for name, size in sizes.items() if size > LONGEST_WORD):
            raise ValueError(f"{', '.join(too_long)}: a variable has {LONGEST_WORD} bytes at most; send a file instead")
        if sum(sizes.values()) > LARGEST_ENVIRONMENT:
            raise ValueError(f"'env' and 'secrets' have {LARGEST_ENVIRONMENT} bytes together at most")
        return self


class TaskInput(SpecInput):
    """A task to be submitted."""

    name: Name | None = Field(None, description="unique among tasks that are not deleted; made up where it is missing")


class ChangeInput(SpecInput):
    """An update of a task: what is missing stays as it is. Files that are given replace all files."""


class BatchInput(Input):
    """Tasks to be submitted together: all, or none. ``defaults`` holds where a task does not say otherwise."""

    tasks: list[TaskInput] = Field(min_length=1)
    defaults: SpecInput = SpecInput()

    def merged(self) -> list[TaskInput]:
        """The tasks, with the defaults filled in."""
        shared = {name: getattr(self.defaults, name) for name in self.defaults.model_fields_set}
        return [one.model_copy(update=shared | _given(one)) for one in self.tasks] if shared else self.tasks


def _given(task: SpecInput) -> dict[str, Any]:
    return {name: getattr(task, name) for name in task.model_fields_set}


def amount(value: float | str) -> float:
    """An amount of a resource as a number: ``512MiB``, ``2GB``, ``1.5G`` are bytes."""
    if not isinstance(value, str):
        return value
    number = value.rstrip("KMGTPiB")
    unit = value[len(number) :].removesuffix("B")
    return float(number) * _MULTIPLES[unit]
