"""The help of one command, and descriptions of option types."""

import re
import shutil
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import docstring_parser

WIDTH = 100  # columns at most
COLUMN = 26  # where the help text starts
LONG = 60  # a list of this many characters gets spaces after its commas, so that it can be wrapped
UNBROKEN = "\N{NO-BREAK SPACE}"
# The help of every command lists INPUTS first, then the command's own `first` options, then OUTPUTS.
INPUTS = ("model", "student", "exported", "arch", "teacher", "table", "corpus", "input", "minutes")
OUTPUTS = ("output", "home")


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Args:
        name: name with underscores and dots, such as `text.validation_fraction`.
        kind: type of the value.
        text: description in the docstring.
        default: default value; None is `null` on the command line.
        required: whether the command needs the option.
    """

    name: str
    kind: Any
    text: str
    default: Any
    required: bool

    @property
    def flag(self) -> str:
        """The option as a user types it, such as `--text.validation-fraction`."""
        return "--" + self.name.replace("_", "-")

    @property
    def head(self) -> str:
        """The flag and its value, such as `--minutes NUMBER`, `--schedule {linear,cosine}` or `--pin, --no-pin`."""
        if self.kind is bool:
            return f"{self.flag}, --no-{self.flag[2:]}"
        return f"{self.flag} {metavar(self.kind)}"


def without_none(kind: Any) -> Any:
    """The type without None, for an option that may be null."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if type(None) in get_args(kind) and len(parts) == 1 else kind


def metavar(kind: Any) -> str:
    """The placeholder for the value after the flag in the help."""
    kind = without_none(kind)
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return f"{metavar(get_args(kind)[0])},..."
    return {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "{true,false}"}.get(kind, "VALUE")


def in_words(kind: Any) -> str:
    """The allowed values of an option, for an error message: `a number or null`, `one of linear, cosine`."""
    inner = without_none(kind)
    if inner is not kind:
        return f"{in_words(inner)} or null"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a comma-separated list, each value {in_words(get_args(kind)[0])}"
    names = {int: "a whole number", float: "a number", str: "a string", Path: "a path", bool: "true or false"}
    return names.get(kind, "another value")


def shown_value(value: Any) -> str:
    """A default as a user would type it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ",".join(map(shown_value, value)) or "none"
    return str(value)


def first_and_advanced(options: Sequence[Option], first: Sequence[str]) -> tuple[list[Option], list[Option]]:
    """The options to list first, required ones before the others, and the remaining options in their order."""
    by_name = {option.name: option for option in options}
    names = [option.name for option in options if option.required]
    names += [name for name in (*INPUTS, *first, *OUTPUTS) if name in by_name]
    chosen = list(dict.fromkeys(names))
    return [by_name[name] for name in chosen], [option for option in options if option.name not in chosen]


def render_help(
    name: str, function: Callable[..., Any], options: Sequence[Option], first: Sequence[str], width: int | None = None
) -> str:
    """The text of `kdnas NAME --help`.

    Args:
        name: name of the command.
        function: function of the command; its docstring gives the description.
        options: all options of the command.
        first: names of the options to list first.
        width: width in columns; by default the terminal's, at most `WIDTH`.
    """
    width = width or min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    needed, advanced = first_and_advanced(options, first)
    needed_words = [option.head for option in options if option.required]
    lines = [_wrapped(" ".join(["usage: kdnas", name, *needed_words, "[options]"]), width, "", " " * 8), ""]
    for paragraph in _description(function):
        lines += [_wrapped(paragraph, width, "", ""), ""]
    names = {option.name for option in options}
    lines.append("options:")
    lines += [_entry(option.head, _text(option, names), width) for option in needed]
    lines.append(_entry("--config FILE.yaml", "YAML file with any of these options; may be given several times", width))
    lines.append(_entry("-h, --help", "show this help", width))
    if advanced:
        lines += ["", "advanced options:"]
    group = ""
    for option in advanced:
        here = option.name.rpartition(".")[0]
        if here != group and option is not advanced[0]:
            lines.append("")
        group = here
        lines.append(_entry(option.head, _text(option, names), width))
    return "\n".join(lines)


def _description(function: Callable[..., Any]) -> list[str]:
    found = docstring_parser.parse(getdoc(function) or "")
    text = "\n\n".join(part for part in (found.short_description, found.long_description) if part)
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


def _text(option: Option, names: Collection[str]) -> str:
    """An option's help in one line with its default; other options that it mentions are written as flags."""
    group = option.name.rpartition(".")[0]
    choices = list(map(str, get_args(without_none(option.kind))))

    def flag(found: re.Match[str]) -> str:
        within = [name for name in names if "_" in found[1] and name.endswith(f".{found[1]}")]
        for name in (f"{group}.{found[1]}" if group else found[1], found[1], *within[:1]):
            if name in names and found[1] not in choices:
                return found[0].replace(found[1], "--" + name.replace("_", "-")).replace("----", "--")
        return found[0]

    text = re.sub(r"(?:`|--)([A-Za-z][\w.]*\w)", flag, " ".join(option.text.split()).rstrip("."))
    if option.required:
        return f"{text} (required)".lstrip()
    if option.default is None and re.search("default|null", text, re.IGNORECASE):
        return text
    value = shown_value(option.default)
    default = f"(default: {value if len(value) < LONG else value.replace(',', ', ')})"
    return f"{text} {default.replace(' ', UNBROKEN) if len(default) < COLUMN else default}".lstrip()


def _entry(head: str, text: str, width: int) -> str:
    """One option: its head in the left column, its text to the right, or below if the head is long."""
    lines = [" "]
    for part in re.split(r"(?<=[,\]])(?! )", f" {head}"):  # wrap a long list of choices after its commas
        if len(lines[-1]) + len(part) > width:
            lines.append(" " * 6)
        lines[-1] += part
    head = "\n".join(lines)
    indent = " " * COLUMN
    if len(head) <= COLUMN - 2 and "\n" not in head:
        return _wrapped(text, width, head.ljust(COLUMN), indent)
    return f"{head}\n{_wrapped(text, width, indent, indent)}" if text else head


def _wrapped(text: str, width: int, first: str, rest: str) -> str:
    filled = textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return filled.replace(UNBROKEN, " ")
