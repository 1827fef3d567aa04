"""Generate the reference of the Python functions from their signatures and docstrings."""

from inspect import signature
from pathlib import Path
from textwrap import indent

from sphinx.ext.napoleon import Config, GoogleDocstring

from kdnas.interface import FUNCTIONS, function_of

HEAD = """# Functions

Fields of option groups are keyword arguments. You can pass dictionaries for other dataclasses, and strings for paths
and architectures. The result has `path`, `results` and `exit_code`.
"""


def write_functions(page: Path) -> None:
    """Write one section for each function of the Python interface."""
    page.write_text("\n".join([HEAD, *(section(name) for name in FUNCTIONS)]), encoding="utf-8")


def section(name: str) -> str:
    """Section of a function: heading, parameters with defaults, and docstring as reStructuredText."""
    function = function_of(name)
    body = str(GoogleDocstring(function.__doc__ or "", Config(napoleon_use_param=True)))
    head = f".. py:function:: kdnas.{name}({', '.join(map(parameter, signature(function).parameters.values()))})"
    return f"## kdnas.{name}\n\n```{{eval-rst}}\n{head}\n\n{indent(body, '   ')}\n```\n"


def parameter(one: object) -> str:
    """Parameter with its default; defaults of groups are omitted, because the command's page lists their fields."""
    name, default = one.name, one.default  # type: ignore[attr-defined]
    if default is type(one).empty:
        return str(name)
    plain = default is None or isinstance(default, bool | int | float | str | tuple)
    return f"{name}={default!r}" if plain else f"{name}=..."
