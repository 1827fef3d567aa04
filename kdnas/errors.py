"""Errors for users. Their messages state the wrong input, what is allowed and what to run; the CLI prints no traceback."""


class KdnasError(Exception):
    """A failure whose message is a full explanation; the CLI prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(KdnasError):
    """Wrong input: an unknown key, a missing path, a value out of range."""

    exit_code = 2


class BoundError(KdnasError):
    """A gate or a quality bound was not met."""

    exit_code = 3


class DivergenceError(KdnasError):
    """A loss or gradient in training is not finite; the previous state is in a checkpoint."""


class Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread so that `finally` blocks run. Exit code 143."""
