"""A tool's arguments as JSON schema: as chat templates are told of it, and as bare text is read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...tools import Tool

__all__ = ["ArgumentTypes", "tool_schema"]


def tool_schema(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates take it: name, description and the JSON schema of its arguments."""
    parameters = _tidy(tool.arguments.model_json_schema())
    parameters.pop("description", None)  # the arguments class's own docstring
    parameters.pop("title", None)
    parameters.setdefault("properties", {})
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": parameters,
        },
    }


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the titles that pydantic gives each field."""
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs") and isinstance(value, dict):
            tidy[key] = {name: _tidy(field) for name, field in value.items()}
        elif key == "additionalProperties" and value is False:
            continue
        elif isinstance(value, dict) and key != "default":
            tidy[key] = _tidy(value)
        elif isinstance(value, list) and key in ("anyOf", "allOf", "oneOf", "prefixItems"):
            tidy[key] = [_tidy(item) for item in value]
        else:
            tidy[key] = value
    return tidy


class ArgumentTypes:
    """The types that each argument of a tool may have, for syntaxes that write values as bare text.

    Example:
        >>> ArgumentTypes.of("nobody", ()).read("count", "3")
        '3'
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._definitions: Mapping[str, Any] = schema.get("$defs", {})
        self._properties: Mapping[str, Any] = schema.get("properties", {})

    @classmethod
    def of(cls, name: str, tools: Sequence[Tool]) -> "ArgumentTypes":
        """The types of the tool of that name; of one that is not there, text alone."""
        tool = next((tool for tool in tools if tool.name == name), None)
        return cls({} if tool is None else tool_schema(tool)["function"]["parameters"])

    def read(self, argument: str, text: str) -> Any:
        """A value of the argument's type: text stays text where it may be.

        What does not fit the type stays text as well: the tool says what is wrong with it.
        """
        types = self._types(self._properties.get(argument, {"type": "string"}))
        if types <= {"string"}:
            return text
        word = {"True": "true", "False": "false", "None": "null"}.get(text.strip(), text)
        try:
            value = json.loads(word, strict=False)
        except (ValueError, RecursionError):
            return text
        return value if _type(value) & types else text

    def _types(self, schema: Any, depth: int = 8) -> set[str]:
        """The JSON types that a schema allows."""
        every = {"string", "integer", "number", "boolean", "null", "array", "object"}
        if not isinstance(schema, Mapping) or not depth:
            return every
        if isinstance(reference := schema.get("$ref"), str):
            return self._types(self._definitions.get(reference.rpartition("/")[2]), depth - 1)
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(key), list):
                return set().union(*(self._types(each, depth - 1) for each in schema[key]))
        if isinstance(schema.get("type"), str):
            return {schema["type"]}
        if isinstance(schema.get("type"), list):
            return set(schema["type"])
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        return set().union(*map(_type, values)) if values else every


def _type(value: object) -> set[str]:
    """The names that JSON schema has for a value's type."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    if isinstance(value, float):
        return {"number", "integer"} if value.is_integer() else {"number"}
    names = {"str": "string", "list": "array", "dict": "object"}
    return {names.get(type(value).__name__, "null")}
