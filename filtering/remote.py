"""Remote stores by fsspec: URLs such as `s3://bucket/file`, and their errors as messages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import require_extras

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
}
# Packages of clients that have errors of their own, for example for missing credentials or a host that does not answer.
CLIENTS = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "huggingface_hub", "requests")


def is_url(name: str) -> bool:
    """Whether a path is a URL, as in `s3://bucket/file`."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name) is not None


def filesystem(url: str, what: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, without remembered listings, and the path in it.

    Args:
        url: the URL.
        what: start of messages, as in `input 's3://bucket/file'`.

    Raises:
        UsageError: the protocol is unknown, or the URL is not valid.
        KdnasError: a package is missing.
    """
    require_extras(what, ("remote",))
    import fsspec

    protocol = url.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        wanted = re.search(r"install (?:the )?['\"`]?([\w-]+)", str(error), re.I)
        package = PACKAGES.get(protocol, wanted[1] if wanted else protocol)
        raise KdnasError(
            f"{what}: {protocol}:// needs a package that is not installed; run: pip install {package}"
        ) from error
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error
    system.invalidate_cache()  # one instance serves all calls: a file that changed or is new must be seen
    return system, path


@contextmanager
def named_errors(what: str, kind: type[KdnasError] = KdnasError) -> Iterator[None]:
    """Turn errors of the operating system or of a remote store into one line that starts with `what`.

    Args:
        what: start of the message.
        kind: type of the error that is raised.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise kind(f"{what}: no such file, folder or bucket") from error
    except PermissionError as error:
        raise kind(f"{what}: access is denied ({_reason(error)}); check the permissions or credentials") from error
    except OSError as error:
        raise kind(f"{what}: cannot be read or written ({_reason(error)})") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        raise kind(f"{what}: {type(error).__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return next(iter(text.strip().splitlines()), "no reason given")
