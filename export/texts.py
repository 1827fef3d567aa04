"""What callers may give a model to read, and the one policy for texts that it cannot read whole.

The session, the service and the filter share it: `truncate` cuts a text at the limit of the model, `error` refuses it, and
`whole` leaves it as it is, for who splits it into windows, as the filter does.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from kdnas.errors import UsageError

TooLong = Literal["truncate", "error", "whole"]
SESSION_POLICIES: tuple[TooLong, ...] = ("truncate", "error")  # a model runs no text that is longer than its limit


class TooLongError(UsageError):
    """A text has more tokens than the model reads.

    Attributes:
        fact: which text has how many tokens, without advice.
    """

    def __init__(self, index: int, tokens: int, limit: int, more: bool = False) -> None:
        self.fact = f"text {index} has {'more than ' if more else ''}{tokens} tokens, the model reads {limit}"
        super().__init__(f"{self.fact}; give a shorter text, or take too_long='truncate' to have the rest cut off")


def require_policy(policy: str, allowed: Sequence[str] = get_args(TooLong)) -> None:
    """Raise UsageError unless the policy is one of those allowed."""
    if policy not in allowed:
        raise UsageError(f"too_long is {policy!r}; allowed are {', '.join(map(repr, allowed))}")


def longer_than(limit: int, lengths: Sequence[int], policy: TooLong) -> list[int]:
    """Indices of the texts with more tokens than a model reads.

    Args:
        limit: tokens that the model reads, special tokens included.
        lengths: tokens of each text, special tokens included.
        policy: what is to be done with them.

    Raises:
        TooLongError: there is one, and the policy is `error`.
    """
    found = [index for index, length in enumerate(lengths) if length > limit]
    if found and policy == "error":
        raise TooLongError(found[0], lengths[found[0]], limit)
    return found


def require_list(texts: Any) -> None:
    """Raise UsageError for a bare string, of which each character would be a text."""
    if isinstance(texts, str | bytes):
        raise UsageError(f"texts is one string ({texts[:40]!r}); give a list, as [{texts[:40]!r}]")


def require_strings(texts: Any) -> None:
    """Raise UsageError unless this is a list of strings; the message names the first item that is none."""
    require_list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts[{index}] is of type {type(text).__name__}; each text must be a str")


def are_pairs(texts: Any) -> bool:
    """Whether this is a list of pairs of strings, as the first item says; else it is one of strings.

    Raises:
        UsageError: a bare string, or an item that is no string, or among pairs no pair; its index and type are named.
    """
    require_list(texts)
    if not len(texts) or isinstance(texts[0], str):
        require_strings(texts)
        return False
    for index, pair in enumerate(texts):
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise UsageError(
                f"texts[{index}] is of type {type(pair).__name__}; give a list of str, or a list of pairs (str, str)"
            )
    return True
