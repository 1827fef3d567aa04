"""Generate the command reference as Markdown from the parsers of the command line."""

import dataclasses
import shutil
import typing
from pathlib import Path
from typing import Any

from kdnas.arguments import make_parser
from kdnas.commands import COMMANDS, GROUPS, load_command

SKIPPED = ("help", "print_shtab")


def write_pages(folder: Path) -> None:
    """Write `GROUP.md` for each group of commands.

    Args:
        folder: output folder; its content is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for group, names in GROUPS.items():
        sections = [f"# {group.capitalize()}", *(section(name) for name in names)]
        (folder / f"{group.replace(' ', '-')}.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def section(name: str) -> str:
    """Section of a command: heading, summary and table of options."""
    summary = COMMANDS[name].summary
    rows = [row(action) for action in make_parser(name, load_command(name), [])._actions if shown(action)]
    head = "| option | values | default | meaning |\n|---|---|---|---|"
    return "\n\n".join((f"## kdnas {name}", f"{summary[0].upper()}{summary[1:]}.", "\n".join((head, *rows))))


def shown(action: Any) -> bool:
    """Whether an option belongs in the table; help and groups of dotted options do not."""
    kind = getattr(action, "_typehint", None) or action.type
    return bool(action.option_strings) and action.dest not in SKIPPED and not action.dest.endswith(".help") and not (
        dataclasses.is_dataclass(kind) or type(action).__name__ == "_ActionConfigLoad"
    )  # fmt: skip


def row(action: Any) -> str:
    """Markdown table row of an option."""
    option = action.option_strings[-1].replace("_", "-")
    kind = getattr(action, "_typehint", None) or action.type
    cells = (f"`{option}`", values_of(kind), default_of(action), " ".join(str(action.help or "").split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def values_of(kind: Any) -> str:
    """Allowed values of an option: the choices, or the name of the type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {values_of(arguments[0])}"
    if arguments:
        return ", ".join("`null`" if part is type(None) else values_of(part) for part in arguments)
    names = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", "text"))


def default_of(action: Any) -> str:
    """Default as written on the command line; `required` if there is none."""
    if action.required:
        return "required"
    value = action.default
    if value is None or value == "==SUPPRESS==":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`{','.join(map(str, value))}`" if value else ""
    return f"`{value}`"
