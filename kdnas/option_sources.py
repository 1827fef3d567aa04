"""Options from YAML files and environment variables, which flags on the command line override."""

import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader

from kdnas.commands import suggest
from kdnas.errors import UsageError

log = logging.getLogger(__name__)

PREFIX = "KDNAS_"
OTHER_VARIABLES = {"KDNAS_HOME", "KDNAS_CONFIG", "KDNAS_DEBUG"}  # allowed for every command
GATE_PREFIX = "KDNAS_GATE_"  # variables that `kdnas gate` passes to its benchmarks
# Kubernetes sets these in every pod of the namespace for a service named `kdnas` or `kdnas-...`.
KUBERNETES = re.compile(r"KDNAS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
MODE = "yaml with dashes"


def _with_underscores(value: Any) -> Any:
    """`{peak-lr: 1}` as `{peak_lr: 1}`, at every depth."""
    if isinstance(value, dict):
        return {
            key.replace("-", "_") if isinstance(key, str) else key: _with_underscores(item)
            for key, item in value.items()
        }
    return value


def yaml_mode() -> str:
    """The name of a parser mode of jsonargparse that reads YAML whose keys have dashes or underscores."""
    from jsonargparse import get_loader

    load = get_loader("yaml")
    set_loader(MODE, lambda text: _with_underscores(load(text)), (yaml.YAMLError,))
    return MODE


class _UniqueKeys(yaml.SafeLoader):
    """Refuses duplicate keys. PyYAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = str(key_node.value).replace("-", "_")
            if key in seen and key != "<<":
                raise UsageError(f"'{key}' was given twice, the second time in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def split_config_files(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split the files of `--config` off the arguments; without the flag, KDNAS_CONFIG gives the file.

    Raises:
        UsageError: `--config` has no value.
    """
    files: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            file = next(words, None)
            if file is None:
                raise UsageError("--config needs a file: --config FILE.yaml")
            files.append(file)
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    if not files and os.environ.get("KDNAS_CONFIG"):
        files = [os.environ["KDNAS_CONFIG"]]
    return files, rest


def require_config_files(files: list[str], groups: Collection[str]) -> None:
    """Raise UsageError if a file is missing, is not YAML, has a key twice, or sets a group to a single value.

    Args:
        files: files given with `--config`.
        groups: names of the option groups, such as `text` in `text.column`.
    """
    for file in files:
        try:
            content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=_UniqueKeys)
        except UsageError as error:
            raise UsageError(f"--config {file}: {error}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"--config {file}: it does not exist or is not a YAML file ({reason})") from error
        if not isinstance(content, dict):
            raise UsageError(f"--config {file}: it must contain `option: value` lines, not {type(content).__name__}")
        for key, value in content.items():
            if str(key).replace("-", "_") in groups and not isinstance(value, dict):
                raise UsageError(f"--config {file}: '{key}' must contain `option: value` lines, not '{value}'")


def variable_of(option: str) -> str:
    """The environment variable of an option, such as `KDNAS_TEXT__COLUMN` for `text.column`."""
    return PREFIX + option.upper().replace(".", "__")


def from_environment(options: Collection[str], environment: Mapping[str, str], command: str) -> dict[str, str]:
    """The options that environment variables set.

    Variables that Kubernetes sets for a service named kdnas, and unknown variables, are ignored with a warning.

    Args:
        options: names of the command's options, such as `text.column`.
        environment: environment variables by name.
        command: name of the command, for the warnings.

    Returns:
        Values by option name.
    """
    known = {variable_of(option): option for option in options}
    found: dict[str, str] = {}
    of_kubernetes, unknown = [], []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        if KUBERNETES_ADDRESS.match(value) or (KUBERNETES.fullmatch(name) and name not in known):
            of_kubernetes.append(name)
        elif name in known:
            found[known[name]] = value
        elif name not in OTHER_VARIABLES and not name.startswith(GATE_PREFIX):
            unknown.append(f"{name}{suggest(name, [*known, *OTHER_VARIABLES])}")
    if of_kubernetes:
        log.warning("ignored: %s (Kubernetes sets them for a service named kdnas)", ", ".join(of_kubernetes))
    if unknown:
        log.warning("ignored: %s; '%s' has no such option", ", ".join(unknown), command)
    return found
