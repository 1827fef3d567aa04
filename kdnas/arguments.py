"""The arguments of one command. jsonargparse derives them from the signature of the command's function."""

import json
import os
import re
from argparse import ArgumentError
from collections.abc import Callable
from inspect import signature
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser

from kdnas.commands import COMMANDS, suggest
from kdnas.errors import UsageError
from kdnas.option_help import Option, in_words, render_help, without_none
from kdnas.option_sources import from_environment, require_config_files, split_config_files, variable_of, yaml_mode


def parse(name: str, function: Callable[..., Any], argv: list[str]) -> dict[str, Any]:
    """Read a command's arguments: defaults < YAML < environment < flags.

    A parameter named `options` is a dataclass whose fields are flags; other dataclasses are dotted groups.

    Args:
        name: name of the command.
        function: function of the command; its parameters are the options.
        argv: command line after the command's name.

    Returns:
        The arguments of the function.

    Raises:
        UsageError: an option is unknown, given twice or of the wrong type, or a file is missing.
    """
    files, argv = split_config_files(argv)
    if COMMANDS[name].repeated:
        argv = gathered(argv, COMMANDS[name].repeated)
    parser = make_parser(name, function, files)
    kinds = _kinds(parser)
    groups = {option.rpartition(".")[0] for option in kinds} - {""}
    require_config_files(files, groups)
    flags = normalise(argv, kinds, name)
    given = {word.partition("=")[0].removeprefix("--") for word in flags if word.startswith("--")}
    environment = from_environment(kinds, os.environ, name)
    environment = {option: value for option, value in environment.items() if option not in given}
    below = [f"--{option}={_listed(value, kinds[option])}" for option, value in environment.items()]
    try:
        namespace = parser.parse_args([*below, *flags])
        values = dict(vars(parser.instantiate(namespace)))
    except ArgumentError as error:
        raise UsageError(_explain(str(error), name, kinds, given, environment, files)) from error
    flattened = _flattened(function)
    if flattened is not None:
        values["options"] = flattened(**{key: values.pop(key) for key in signature(flattened).parameters})
    return values


def command_help(name: str, function: Callable[..., Any], width: int | None = None) -> str:
    """The text of `kdnas NAME --help`; `width` is in columns and defaults to the terminal's."""
    parser = make_parser(name, function, [])
    options = [
        Option(action.dest, action._typehint, action.help or "", action.default, action.required)
        for action in parser._actions
        if hasattr(action, "_typehint")
    ]
    return render_help(name, function, options, COMMANDS[name].first, width)


def _flattened(function: Callable[..., Any]) -> Any:
    """The dataclass of the parameter `options`, or None without that parameter."""
    parameters = signature(function).parameters
    return parameters["options"].annotation if "options" in parameters else None


def make_parser(name: str, function: Callable[..., Any], files: list[str]) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"kdnas {name}",
        add_help=False,
        default_config_files=list(files),  # unlike a `--config` action, the environment overrides these
        parser_mode=yaml_mode(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    flattened = _flattened(function)
    if flattened is not None:
        parser.add_class_arguments(flattened, None)
    parser.add_function_arguments(function, None, skip={"options"})
    return parser


def _kinds(parser: ArgumentParser) -> dict[str, Any]:
    """The type of each option by its name; the type of a whole group, such as `text`, is None."""
    return {action.dest: getattr(action, "_typehint", None) for action in parser._actions}


def gathered(argv: list[str], option: str) -> list[str]:
    """The command line with all values of one option in one list.

    Words before the first option are values too: `a --model b=c --port 1` becomes `--model=["a", "b=c"] --port 1`.

    Args:
        argv: command line after the command's name.
        option: name of the option.
    """
    found: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == f"--{option}":
            found += (value if equals else next(words, "")).split(",")
        elif not rest and word[:1] != "-":
            found.append(word)
        else:
            rest.append(word)
    return [f"--{option}={json.dumps(found, ensure_ascii=False)}", *rest] if found else rest


def normalise(argv: list[str], kinds: dict[str, Any], name: str) -> list[str]:
    """Rewrite a user's command line for jsonargparse.

    `--dry-run` becomes `--dry_run`, `--flag` becomes `--flag true`, `--no-flag` becomes `--flag false`, and `a,b` becomes a list.

    Args:
        argv: command line after the command's name.
        kinds: type of each option by its name.
        name: name of the command, for error messages.

    Raises:
        UsageError: an option is given twice.
    """
    result: list[str] = []
    seen: set[str] = set()
    last = ""  # the option whose value comes next
    for index, word in enumerate(argv):
        if not word.startswith("--"):
            result.append(_listed(word, kinds.get(last)))
            last = ""
            continue
        option, equals, value = word[2:].partition("=")
        option = option.replace("-", "_")
        positive = option.removeprefix("no_")
        negated = option not in kinds and kinds.get(positive) is bool and not equals
        last = positive if negated else option
        if last in seen:
            raise UsageError(_twice(last, kinds.get(last)))
        seen.add(last)
        if equals:
            result.append(f"--{last}={_listed(value, kinds.get(last))}")
            last = ""
            continue
        result.append(f"--{last}")
        following = argv[index + 1].lower() if index + 1 < len(argv) else ""
        if kinds.get(last) is bool and (negated or following not in ("true", "false", "yes", "no")):
            result.append("false" if negated else "true")
            last = ""
    return result


def _twice(option: str, kind: Any) -> str:
    flag = _dashed(option)
    if get_origin(without_none(kind)) is tuple:
        return f"{flag} was given twice; give all its values at once: {flag} a,b"
    return f"{flag} was given twice; it takes one value"


def _dashed(option: str) -> str:
    return "--" + option.replace("_", "-")


def _listed(word: str, kind: Any) -> str:
    """`a,b` as `["a","b"]` if the type is a tuple or an optional tuple; else the word itself."""
    kind = without_none(kind)
    if get_origin(kind) is not tuple or word.startswith("[") or word == "null":
        return word
    if get_args(kind)[0] in (int, float, bool):
        return f"[{word}]"
    return json.dumps([part.strip() for part in word.split(",")], ensure_ascii=False)  # YAML reads `no` as false


def _explain(
    message: str,
    name: str,
    kinds: dict[str, Any],
    given: set[str],
    environment: dict[str, str],
    files: list[str],
) -> str:
    """Rewrite jsonargparse's message as one line: source of the value, type of the option, given value.

    Args:
        message: error message of jsonargparse.
        name: name of the command.
        kinds: type of each option by its name.
        given: options on the command line.
        environment: values of environment variables by option name.
        files: files given with `--config`.
    """
    line = re.sub(r"\s+", " ", message).strip()
    advice = f"; `kdnas {name} --help` lists the options"
    in_file = f"--config {', '.join(files)}: " if files else ""
    if wrong := re.search(r'Parser key "([^"]+)":', line):
        option = wrong[1]
        value = re.search(r"Given value: (.*)$", line) or re.search(r"Got value: (.*)$", line)
        if option in given:
            source = _dashed(option)
        elif option in environment:
            source = variable_of(option)
        else:
            source = f"{in_file}{option}"
        if kinds.get(option) is None:
            members = ", ".join(_dashed(known) for known in kinds if known.startswith(f"{option}."))
            return f"{name}: {source} is a group of options; give {members}"
        got = f", not '{value[1]}'" if value else ""
        return f"{name}: {source} takes {in_words(kinds[option])}{got}{advice}"
    if missing := re.search(r"arguments are required: (.*)$", line):
        return f"{name}: missing: {', '.join(_dashed(option.strip()) for option in missing[1].split(','))}{advice}"
    if valueless := re.search(r"argument --([\w.]+): expected one argument", line):
        return f"{name}: {_dashed(valueless[1])} needs a value: {in_words(kinds[valueless[1]])}{advice}"
    if unknown := re.search(r"unrecognized arguments: --([\w.]+)", line):
        return f"{name}: no option {_dashed(unknown[1])}{_nearest(unknown[1], kinds)}{advice}"
    if bare := re.search(r"unrecognized arguments: (.*)$", line):
        return f"{name}: '{bare[1]}' belongs to no option; write options as --option VALUE{advice}"
    if nested := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line):
        option = f"{nested[1]}.{nested[2]}"
        return f"{name}: {in_file}no option {option}{_nearest(option, kinds)}{advice}"
    if outside := re.search(r"Option '([\w.]+)' is not accepted", line):
        return f"{name}: {in_file}no option {outside[1]}{_nearest(outside[1], kinds)}{advice}"
    return f"{name}: {line}{advice}"


def _nearest(option: str, kinds: dict[str, Any]) -> str:
    return suggest(_dashed(option), map(_dashed, [*kinds, "config", "help"]))
