"""The Python interface: `kdnas.distill(arch="4,12,384,768,gelu", minutes=10)` and the other functions of `import kdnas`.

Each function wraps the function of a command, which takes some of its options as dataclasses. In the wrapper the fields of the
parameter `options` are keyword arguments, other dataclasses may be dictionaries, and paths and architectures may be strings.
"""

import difflib
import importlib
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass, replace
from functools import cache
from inspect import Parameter, Signature, cleandoc, signature
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from kdnas.errors import KdnasError, UsageError

FUNCTIONS = {
    "latency_table": "kdnas.latency.run:latency_table",
    "search": "kdnas.search.run:search",
    "distill": "kdnas.distill.run:distill",
    "refine": "kdnas.distill.run:refine",
    "autodistil": "kdnas.autodistil.run:autodistil",
    "extract": "kdnas.autodistil.extract:extract",
    "export": "kdnas.export.run:export",
    "evaluate": "kdnas.evaluation.run:evaluate",
    "suites": "kdnas.evaluation.harness:suites",
    "hap": "kdnas.evaluation.hap_classifier.run:hap",
    "pretrain": "kdnas.pretrain.run:pretrain",
    "speed": "kdnas.latency.speed:speed",
    "filter_documents": "kdnas.filtering.run:filter_documents",
}
GROUP = "options"  # the parameter whose fields are keyword arguments


class CallablePackage(types.ModuleType):
    """A subpackage that has the name of a function, such as `kdnas.export`, and can be called like it.

    The import system binds `kdnas.export` to the package as soon as a module in it is imported. With this class as the type of
    the package both uses work, in any order of imports.
    """

    def __call__(self, *args: Any, **given: Any) -> Any:
        """Call the function of the same name."""
        return self.function(*args, **given)

    @property
    def function(self) -> Callable[..., Any]:
        """The function of the same name."""
        return function_of(self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Signature:
        return signature(self.function)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """The function's docstring, for `help`."""
        name = self.__name__.rpartition(".")[2]
        return f"kdnas.{name}{signature(self.function)}\n\n{self.function.__doc__}"


@cache
def function_of(name: str) -> Callable[..., Any]:
    """The function with this name in `FUNCTIONS`. The call imports the command's module.

    Raises:
        KdnasError: an optional package is not installed.
    """
    module, _, attribute = FUNCTIONS[name].partition(":")
    try:
        command: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise KdnasError(f"kdnas.{name} needs the package '{error.name}', which is not installed") from error
    flat = flat_signature(command)

    def function(*args: Any, **given: Any) -> Any:
        return command(**arguments(name, command, flat, args, given))

    function.__name__ = function.__qualname__ = name
    function.__module__ = "kdnas"
    function.__doc__ = flat_doc(command)
    function.__signature__ = flat  # type: ignore[attr-defined]
    return function


def flat_signature(command: Callable[..., Any]) -> Signature:
    """The signature of a command's function, with the fields of its parameter `options` as separate keyword arguments."""
    whole = signature(command)
    own = [one for one in whole.parameters.values() if one.name != GROUP]
    own.sort(key=lambda one: one.default is not Parameter.empty)
    group = get_type_hints(command).get(GROUP)
    given = [] if group is None else list(signature(group).parameters.values())
    keywords = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in given]
    return whole.replace(parameters=[*own, *keywords])


def arguments(
    name: str, command: Callable[..., Any], flat: Signature, args: tuple[Any, ...], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Convert the caller's arguments to the arguments of a command's function.

    Raises:
        UsageError: an argument is unknown, missing, repeated or of the wrong type.
    """
    _require_known(name, given, flat.parameters)
    try:
        bound = flat.bind(*args, **given).arguments
    except TypeError as error:  # missing, repeated, or too many without a name
        needed = [key for key, one in flat.parameters.items() if one.default is Parameter.empty]
        required = f"required are {', '.join(needed)}" if needed else "nothing is required"
        raise UsageError(f"{name}: {error}; {required}, and `help(kdnas.{name})` lists all") from error
    hints = get_type_hints(command)
    group = hints.get(GROUP)
    inner = get_type_hints(group) if group else {}
    values = {key: convert(f"{name}: {key}", value, hints.get(key, inner.get(key))) for key, value in bound.items()}
    if group is not None:
        chosen = {key: values.pop(key) for key in signature(group).parameters if key in values}
        values[GROUP] = group(**chosen)
    for key, value in values.items():
        default = signature(command).parameters[key].default
        if isinstance(bound.get(key), Mapping) and is_dataclass(default) and not isinstance(default, type):
            values[key] = replace(default, **{one: getattr(value, one) for one in bound[key]})
    return values


def convert(what: str, value: Any, hint: Any) -> Any:
    """Convert a value to the annotated type of its parameter.

    Args:
        what: name of the parameter, for the error message.
        value: a value of this type; or `str` for paths and architectures, a dictionary for a dataclass, a list for a tuple, or an
            earlier result for a path.
        hint: the annotation.

    Raises:
        UsageError: the value has another type, or a dictionary has an unknown key.
    """
    if get_origin(hint) in (Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        rest = [option for option in options if option is not type(None)]
        if len(rest) == 1:
            return convert(what, value, rest[0])
        for option in rest:
            try:
                return convert(what, value, option)
            except UsageError:
                continue
    elif get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
    elif get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(convert(f"{what}[{index}]", item, get_args(hint)[0]) for index, item in enumerate(value))
    elif isinstance(hint, type):
        return _of_class(what, value, hint)
    else:
        return value
    raise _wrong(what, value, hint)


def _of_class(what: str, value: Any, kind: Any) -> Any:
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if issubclass(kind, os.PathLike) or kind is str:
        path = getattr(value, "path", value)  # of the result of an earlier call
        if isinstance(path, str | os.PathLike):
            return kind(path)
        if kind is str and hasattr(value, "parse"):  # an Arch
            return str(value)
    if isinstance(value, str) and hasattr(kind, "parse"):  # Arch
        return kind.parse(value)
    if isinstance(value, Mapping) and is_dataclass(kind):
        hints, group = get_type_hints(kind), cast(Any, kind)
        _require_known(what, value, signature(group).parameters)
        return group(**{key: convert(f"{what}.{key}", item, hints[key]) for key, item in value.items()})
    raise _wrong(what, value, kind)


def _require_known(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    names = list(allowed)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise UsageError(f"{what}: unknown argument '{name}'{hint}; allowed are {', '.join(names)}")


def _wrong(what: str, value: Any, hint: Any) -> UsageError:
    wanted = ", ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else _type_name(hint)
    return UsageError(f"{what} is {value!r} ({type(value).__name__}); allowed: {wanted}")


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("pathlib.", "")


def flat_doc(command: Callable[..., Any]) -> str:
    """The docstring of a command's function, with the fields of `options` in place of that parameter."""
    text = cleandoc(command.__doc__ or "")
    group = get_type_hints(command).get(GROUP)
    if group is None:
        return text
    described = "".join(_described(one) for one in reversed(group.__mro__) if is_dataclass(one))
    return re.sub(rf"^    {GROUP}:.*\n(?:     .*\n)*", lambda _: described, text + "\n", count=1, flags=re.M).rstrip()


def _described(group: Any) -> str:
    """The entries below `Args:` of a dataclass's docstring."""
    found = re.search(r"^Args:\n((?:    .*(?:\n|$))+)", cleandoc(group.__doc__ or ""), re.M)
    return found[1].rstrip("\n") + "\n" if found else ""
