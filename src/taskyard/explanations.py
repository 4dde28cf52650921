"""What is wrong with an input or a setting, in plain words: pydantic's own speak of its types. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: What has a sentence of its own. The bound comes from the error's context, by the name in braces.
_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, and not such a large one",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "string_unicode": "must be a text in UTF-8",
    "string_too_short": "must have {min_length} characters at least",
    "string_too_long": "must have {max_length} characters at most",
    "too_short": "must have {min_length} or more",
    "too_long": "must have {max_length} at most",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object of names and values",
    "model_type": "must be an object of names and values",
    "model_attributes_type": "must be an object of names and values",
    "json_invalid": "is not JSON: {error}",
    "path_type": "must be a path",
}
_NO_NUL = r"^[^\x00]*$"
_CHOICES = re.compile(r"\^\(([\w|]+)\)\$")
#: What pydantic adds to a place to say which of several types it has tried there.
_TRIED = re.compile(r"constrained-\w+|(list|dict|function-\w+)\[.*\]|str|int|float")
_KEY = "[key]"


def faults(errors: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[int | str, ...], str]]:
    """Where each fault is, and a sentence without its subject, from the errors of a pydantic ``ValidationError``. What was
    tried as several types is one fault."""
    found: dict[tuple[int | str, ...], list[str]] = {}
    for one in errors:
        location = tuple(one["loc"])
        if len(location) > 1 and _TRIED.fullmatch(str(location[-1])):
            location = location[:-1]
        said = _sentence(one)
        if location[-1:] == (_KEY,):
            location, said = location[:-1], f"its name {said}"
        sentences = found.setdefault(location, [])
        if said not in sentences:
            sentences.append(said)
    return [(location, ", or ".join(sentences)) for location, sentences in found.items()]


def _sentence(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch":
        return _pattern(context["pattern"])
    if sentence := _SENTENCES.get(error["type"]):
        return sentence.format_map({name: _plain(value) for name, value in context.items()})
    return str(error["msg"]).removeprefix("Value error, ")


def _pattern(pattern: str) -> str:
    if pattern == _NO_NUL:
        return "must not hold a NUL character"
    if choices := _CHOICES.fullmatch(pattern):
        return f"must be one of {', '.join(choices[1].split('|'))}"
    return f"must match {pattern}"


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
