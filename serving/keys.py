"""Bearer keys: read from a file, compared in constant time."""

import hashlib
import hmac
import ipaddress
from pathlib import Path

from kdnas.errors import UsageError

SHORTEST = 16  # characters of a key


class Keys:
    """The keys of a file; none without a file.

    Args:
        file: file with one key a line; empty lines and lines that start with # are ignored.

    Raises:
        UsageError: the file cannot be read, has no key, or has a key that is too short or not printable ASCII.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._digests = [] if file is None else [_digest(key) for key in read_keys(file)]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def first(self) -> str | None:
        """The first key of the file; None without a file."""
        return None if self.file is None else read_keys(self.file)[0]

    def allow(self, authorization: str) -> bool:
        """Whether the value of an Authorization header has one of the keys. The time does not depend on the keys."""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(given, digest)
        return found and scheme.lower() == "bearer"


def read_keys(file: Path) -> list[str]:
    """The keys of a file, as in `Keys`."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"key_file '{file}': cannot be read ({error}); give a file with one key a line") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise UsageError(f"key_file '{file}': no key; write one a line, for example of `openssl rand -hex 32`")
    if any(len(key) < SHORTEST or not key.isprintable() or " " in key for key in keys):
        raise UsageError(f"key_file '{file}': a key needs at least {SHORTEST} characters without spaces")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def require_keys(host: str, keys: Keys, anonymous: bool) -> None:
    """Refuse to serve beyond this machine without keys.

    Args:
        host: the address that the socket is bound to.
        keys: the keys.
        anonymous: whether the user allowed it.

    Raises:
        UsageError: other machines reach the address, there are no keys, and `anonymous` is false.
    """
    if not keys and not anonymous and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise UsageError(
            f"host {host} is reached by other machines, and there are no keys; give --key-file FILE, or --anonymous if another "
            "service checks who calls"
        )
