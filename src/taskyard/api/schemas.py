"""What version 2 takes: bodies and forms, with their bounds. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from taskyard.api.amounts import LARGEST_SIZE, Amount, Size, as_bytes, no_less_than, size_schema
from taskyard.api.command import LONGEST_COMMAND, LONGEST_WORD, MOST_WORDS
from taskyard.api.names import LONGEST_PATH, NAME_PATTERN
from taskyard.offers import LONGEST_LABEL, MOST_LABELS
from taskyard.task.model import Fork
from taskyard.task.requirements import LONGEST_REQUIREMENT, MOST_REQUIREMENTS

_NO_NUL = r"^[^\x00]*$"
#: Seconds in a year: no run lasts longer.
LONGEST_TIMEOUT = 366 * 86400.0
LONGEST_GRACE = 3600.0
MOST_RETRIES = 1000
LARGEST_PRIORITY = 1_000_000
MOST_VARIABLES = 1000
#: Bytes of all variables together: they share Linux' room for a new process with the command.
LARGEST_ENVIRONMENT = 1 << 20
#: Below that no interpreter starts.
LEAST_MEMORY = 16 << 20
LEAST_OPEN_FILES = 16
#: What Linux itself allows at most, by default.
MOST_PROCESSES = 1 << 22
MOST_OPEN_FILES = 1 << 20
LEAST_CPUS, MOST_CPUS = 0.01, 10_000

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PATH, pattern=_NO_NUL)]
Word = Annotated[str, StringConstraints(max_length=LONGEST_WORD, pattern=_NO_NUL)]
#: Quotes make a command longer than its words.
CommandLine = Annotated[str, StringConstraints(min_length=1, max_length=2 * LONGEST_COMMAND, pattern=_NO_NUL)]
VariableName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Label = Annotated[str, StringConstraints(max_length=LONGEST_LABEL, pattern=r"^[A-Za-z0-9._/-]*$")]
LabelName = Annotated[str, StringConstraints(max_length=LONGEST_LABEL, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Variables = Annotated[dict[VariableName, Word], Field(max_length=MOST_VARIABLES)]
Requirement = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_REQUIREMENT, pattern=_NO_NUL)]
ReturnTypeName = Literal["none", "text", "json", "file"]
Timeout = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT, allow_inf_nan=False)]
Memory = Annotated[
    int, Field(le=LARGEST_SIZE), no_less_than(LEAST_MEMORY), BeforeValidator(as_bytes), size_schema(LEAST_MEMORY)
]
FileSize = Annotated[int, Field(ge=1, le=LARGEST_SIZE), BeforeValidator(as_bytes), size_schema(1)]


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


class LimitsInput(Input):
    """What one run may use at most; what is missing or null is not limited. Sizes are bytes, or such as '512MiB'."""

    memory: Memory | None = Field(
        None, description="of all its processes together; beyond it they are killed, with the reason `oom`"
    )
    cpus: Annotated[float, Field(ge=LEAST_CPUS, le=MOST_CPUS, allow_inf_nan=False)] | None = Field(
        None, description="CPUs; beyond them it is slowed down", examples=[0.5]
    )
    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] | None = Field(
        None, description="processes and threads together; no more can be started", examples=[64]
    )
    open_files: Annotated[int, Field(ge=LEAST_OPEN_FILES, le=MOST_OPEN_FILES)] | None = Field(
        None, description="open files of each process; no more can be opened", examples=[256]
    )
    file_size: FileSize | None = Field(None, description="of each file that it writes; a longer one cannot be written")
    disk: FileSize | None = Field(
        None, description="of its working directory, uploads included; beyond it the run ends, with the reason `limit`"
    )

    @model_validator(mode="before")
    @classmethod
    def _limits_that_there_are(cls, value: Any) -> Any:
        unknown = sorted(set(value) - set(cls.model_fields)) if isinstance(value, dict) else []
        if unknown:
            names = {"name": repr(str(unknown[0])[:40]), "names": ", ".join(cls.model_fields)}
            raise PydanticCustomError("unknown_limit", "there is no limit {name}, only {names}", names)
        return value


class SpecInput(Input):
    """What a task runs, and how. Everything has a default."""

    command: CommandLine | Annotated[list[Word], Field(min_length=1, max_length=MOST_WORDS)] | None = Field(
        None,
        description="a string is what would follow `python`, split as a POSIX shell would; a list is a program with its "
        "arguments, run directly: one of the files, or on the executor's PATH. Without it Python runs the only file",
        examples=["hello.py 6", "-m package.module x", ["bash", "job.sh"]],
    )
    script: str | None = Field(
        None,
        description="a script's text; stored as the file that the command begins with, else as `script.py`; where the "
        "command is a list, only a first word with a slash is a file's name",
        examples=["print(40 + 2)"],
    )
    files: list[FileInput] = Field(default=[], description="further files")
    return_type: ReturnTypeName = Field(
        "none", description="what a finished task's value is: null, its stdout, its stdout parsed, its artifacts' paths"
    )
    env: Variables = Field(default={}, description="environment variables", examples=[{"LANGUAGE": "en"}])
    secrets: Variables = Field(default={}, description="environment variables whose values are never shown again")
    timeout: Timeout | None = Field(None, description="seconds that one run may take")
    queue_timeout: Timeout | None = Field(
        None, description="seconds that the task may wait for room; each wait counts by itself"
    )
    total_timeout: Timeout | None = Field(
        None, description="seconds from submit (or start) to the end, waits and all runs together"
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
    limits: LimitsInput = Field(
        default=LimitsInput(),
        description="what one run may use at most; only an executor that can enforce them all runs the task",
        examples=[{"memory": "512MiB", "processes": 64}],
    )

    requirements: list[Requirement] = Field(
        default=[],
        max_length=MOST_REQUIREMENTS,
        description="packages that the script needs, as in a requirements file; those in its own metadata (PEP 723) are "
        "added. It then runs in an environment that holds them and nothing else",
        examples=[["numpy>=2", "rich==14.0.0"]],
    )
    fork: Fork = Field(
        "auto",
        description="how the script's interpreter is started: 'never' gives it a fresh one, where 'auto' may fork a warm one",
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
