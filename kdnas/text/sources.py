"""The parts of a corpus: one source, or several local files and folders separated by commas."""

from pathlib import Path

from kdnas.errors import UsageError


def split_source(source: str) -> list[str]:
    """The names between the commas of a source, unless it is itself a file or folder."""
    whole = "," not in source or Path(source).exists()
    return [source] if whole else [part.strip() for part in source.split(",")]


def sources_of(source: str) -> list[str]:
    """The parts of a source; a single one, also one that is not local, is returned alone.

    Raises:
        UsageError: one of several parts is empty, given twice, or no local file or folder.
    """
    parts = split_source(source)
    if len(parts) == 1:
        return parts
    for part in parts:
        if not part:
            raise UsageError(f"corpus '{source}': a name between commas is empty; give files and folders as A,B,C")
        if not Path(part).exists():
            raise UsageError(
                f"corpus '{source}': no such file '{part}'; several sources must be local files and folders"
            )
    resolved = [Path(part).resolve() for part in parts]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise UsageError(f"corpus '{source}': '{parts[index]}' is given twice; give each file once")
    return parts


def is_local(source: str) -> bool:
    """Whether all parts of a source are files or folders on this host."""
    return all(Path(part).exists() for part in sources_of(source))
