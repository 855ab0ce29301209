"""A method with its build parameters as text: `faiss-hnsw(links=32,build_effort=200)`.

Owns that spelling, which a choice file and `nearfield build --method` use. Beside the parameters
`graph=True` asks for the lists that the library makes itself, where it would be queried otherwise.
"""

import tomllib
from typing import Any

from benchmark.methods import method_named
from benchmark.methods.base import Method
from nearfield.errors import UsageError

GRAPH = "graph"


def spelled(text: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters; values are written as in TOML, a word without quotes is text.

    Raises `UsageError` for text of another form.
    """
    name, opened, rest = text.partition("(")
    if not opened:
        return text, {}
    if not rest.endswith(")"):
        raise UsageError(f"expected METHOD(parameter=value,...), got {text!r}")
    parameters = {}
    for part in filter(None, (part.strip() for part in rest[:-1].split(","))):
        parameter, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"expected METHOD(parameter=value,...), got {part!r} in {text!r}")
        parameters[parameter.strip()] = _value(value.strip())
    return name, parameters


def method_spelled(text: str) -> tuple[Method, bool]:
    """The method that is spelled so, and whether its own graph is asked for.

    Raises `UsageError` for an unknown one, or a graph of a method that makes none.
    """
    name, parameters = spelled(text)
    graph = parameters.pop(GRAPH, False)
    method = method_named(name, parameters)
    if not isinstance(graph, bool):
        raise UsageError(f"expected {GRAPH}=True or {GRAPH}=False in {text!r}; got {graph!r}")
    if graph and not method.graphs:
        raise UsageError(f"{method.name} makes no graph by itself: leave {GRAPH}=True out")
    return method, graph


def _value(text: str) -> Any:
    if text in {"True", "False"}:
        return text == "True"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
