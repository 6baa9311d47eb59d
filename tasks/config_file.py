"""Reads a stage's settings from YAML or JSON, and says precisely what is wrong with them."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from storage.inputs import read_input

Config = TypeVar("Config", bound=BaseModel)


def read_settings(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file, on disk or at a URL.

    Raises:
        ValueError: Not YAML (with ``path:line``), or not a mapping.
    """
    try:
        value = yaml.safe_load(read_input(str(path)).decode())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: not valid YAML: {error.problem}. Correct it.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, found other bytes at {error.start}.") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}: expected a mapping of settings, found {type(value).__name__}. "
            "examples/pipeline.yaml shows the form."
        )
    return value


def validated(config: type[Config], settings: Mapping[str, Any], *, origin: str) -> Config:
    """Return ``settings`` as a ``config``, or one message that names every wrong field.

    Raises:
        ValueError: Unknown field, wrong type, or a value out of range; ``origin`` says where.
    """
    try:
        return config.model_validate(dict(settings))
    except ValidationError as error:
        problems = [_problem(config, dict(item)) for item in error.errors()]
        raise ValueError("\n".join([f"{origin}: settings are not valid.", *problems])) from error


def merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` with dotted ``overrides`` (``"indexing.model.name"``) put in.

    An override of None is left out. Neither argument is changed.
    """
    result = dict(settings)
    for dotted, value in overrides.items():
        if value is None:
            continue
        head, _, rest = dotted.partition(".")
        if rest:
            inner = result.get(head)
            result[head] = merged(inner if isinstance(inner, Mapping) else {}, {rest: value})
        else:
            result[head] = value
    return result


def _problem(config: type[BaseModel], item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "(whole)"
    if item["type"] == "extra_forbidden":
        names = _field_names(config)
        close = difflib.get_close_matches(str(item["loc"][-1]), sorted(names), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"  {where}: there is no such field.{hint}"
    if item["type"] == "missing":
        return f"  {where}: required, but not given."
    return f"  {where}: {item['msg']}, got {item['input']!r}."


def _field_names(config: type[BaseModel]) -> set[str]:
    names: set[str] = set()
    for definition in config.model_json_schema().get("$defs", {}).values():
        names.update(definition.get("properties", {}))
    return names | set(config.model_fields)
