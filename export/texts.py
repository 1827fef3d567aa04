"""Checks of a model's input texts, and the policy for texts longer than the model's limit.

The session, the service and the filter share the policy: `truncate` cuts a text at the limit, `error` refuses it, and `whole`
leaves it unchanged, for callers that split it into windows, as the filter does.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from kdnas.errors import UsageError

TooLong = Literal["truncate", "error", "whole"]
SESSION_POLICIES: tuple[TooLong, ...] = ("truncate", "error")  # a model cannot run a text longer than its limit


class TooLongError(UsageError):
    """A text has more tokens than the model's limit.

    Attributes:
        fact: the text's index and its number of tokens, as a sentence without advice.
    """

    def __init__(self, index: int, tokens: int, limit: int, more: bool = False) -> None:
        self.fact = f"text {index} has {'more than ' if more else ''}{tokens} tokens; the model reads at most {limit}"
        super().__init__(f"{self.fact}; give a shorter text, or too_long='truncate' to cut it")


def require_policy(policy: str, allowed: Sequence[str] = get_args(TooLong)) -> None:
    """Raise UsageError unless the policy is one of `allowed`."""
    if policy not in allowed:
        raise UsageError(f"too_long is {policy!r}; allowed are {', '.join(map(repr, allowed))}")


def longer_than(limit: int, lengths: Sequence[int], policy: TooLong) -> list[int]:
    """Indices of the texts with more tokens than a model's limit.

    Args:
        limit: maximum tokens of the model, with special tokens.
        lengths: tokens of each text, with special tokens.
        policy: what to do with longer texts.

    Raises:
        TooLongError: a text is too long and the policy is `error`.
    """
    found = [index for index, length in enumerate(lengths) if length > limit]
    if found and policy == "error":
        raise TooLongError(found[0], lengths[found[0]], limit)
    return found


def require_list(texts: Any) -> None:
    """Raise UsageError for a bare string, because its characters would be used as texts."""
    if isinstance(texts, str | bytes):
        raise UsageError(f"texts is one string ({texts[:40]!r}); give a list, for example [{texts[:40]!r}]")


def require_strings(texts: Any) -> None:
    """Raise UsageError unless this is a list of strings; the message names the first item that is not a string."""
    require_list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts[{index}] is of type {type(text).__name__}; each text must be a str")


def are_pairs(texts: Any) -> bool:
    """Whether this is a list of pairs of strings instead of a list of strings, according to the first item.

    Raises:
        UsageError: `texts` is a bare string, or an item is of another type than the first; the message names index and type.
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
