"""Opens the store of a path or a URL: the one place that chooses between the two kinds."""

from pathlib import Path

from kdnas.filtering.disk import DiskStore
from kdnas.filtering.objects import ObjectStore
from kdnas.filtering.remote import is_url
from kdnas.filtering.store import Store


def open_store(output: str) -> Store:
    """The store of a local folder or a URL; nothing is created yet.

    Raises:
        UsageError: a URL of a kind of store that is not supported.
        KdnasError: a package for the store is missing.
    """
    return ObjectStore(output) if is_url(output) else DiskStore(Path(output))
