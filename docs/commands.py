"""The reference of the commands, written as Markdown from the parsers that the command line itself uses."""

import dataclasses
import shutil
import typing
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from kdnas.cli import COMMANDS, load_command

GROUPS = {
    "search": ("latency-table", "recommend", "compare-latency", "latency-report", "search", "record", "compare-strategies"),
    "train": ("pretrain", "distill", "refine", "task-texts"),
    "export": ("export",),
    "evaluate": ("evaluate", "suites", "compare-suites", "speed", "fidelity"),
    "use": ("pipeline", "serve", "filter", "report"),
    "gates": ("gate run", "gate check", "gate compare"),
}  # fmt: skip
SKIPPED = ("help", "print_shtab")


def parser_of(name: str) -> ArgumentParser:
    """The parser of one command, as `kdnas.cli.parse` builds it."""
    function = load_command(name)
    parser = ArgumentParser(prog=f"kdnas {name}", default_env=True, env_prefix="KDNAS")
    parser.add_argument("--config", type=Path, help="YAML file with any of these options; may be given several times")
    parameters = signature(function).parameters
    if "options" in parameters:
        parser.add_class_arguments(parameters["options"].annotation, None)
    parser.add_function_arguments(function, None, skip={"options"})
    return parser


def write_pages(folder: Path) -> None:
    """Write `GROUP.md` for each group of commands.

    Args:
        folder: where the pages go; what lies in it is replaced.

    Raises:
        ValueError: a command is in no group, or a group names one that does not exist.
    """
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(COMMANDS):
        raise ValueError(f"docs/commands.py: GROUPS differs from the commands in {set(grouped) ^ set(COMMANDS)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for group, names in GROUPS.items():
        sections = [f"# {group.capitalize()}", *(section(name) for name in names)]
        (folder / f"{group}.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def section(name: str) -> str:
    """One command: its heading, its summary and the table of its options."""
    summary = COMMANDS[name].summary
    rows = [row(action) for action in parser_of(name)._actions if shown(action)]
    head = "| option | values | default | meaning |\n|---|---|---|---|"
    return "\n\n".join((f"## kdnas {name}", f"{summary[0].upper()}{summary[1:]}.", "\n".join((head, *rows))))


def shown(action: Any) -> bool:
    """Whether an option belongs in the table: not help, and not a group that merely holds dotted options."""
    kind = getattr(action, "_typehint", None) or action.type
    return bool(action.option_strings) and action.dest not in SKIPPED and not action.dest.endswith(".help") and not (
        dataclasses.is_dataclass(kind) or type(action).__name__ == "_ActionConfigLoad"
    )  # fmt: skip


def row(action: Any) -> str:
    """One option as a row of a Markdown table."""
    option = action.option_strings[-1].replace("_", "-")
    kind = getattr(action, "_typehint", None) or action.type
    cells = (f"`{option}`", values_of(kind), default_of(action), " ".join(str(action.help or "").split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def values_of(kind: Any) -> str:
    """What an option takes: the values of a choice, or the name of a type."""
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
    """The default, as it would be written on the command line; `required` where there is none."""
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
