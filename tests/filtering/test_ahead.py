"""A bounded chain of threads: order, errors, and no more bytes on the way than allowed."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kdnas.filtering.ahead import ByteLimit, ahead


@dataclass(frozen=True)
class Item:
    bytes: int


def test_items_keep_their_order_and_errors_their_place() -> None:
    def numbers() -> Iterator[int]:
        yield from range(5)
        raise RuntimeError("the sixth")

    chain = ahead(ahead(numbers()))
    assert [next(chain) for _ in range(5)] == [0, 1, 2, 3, 4]  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="the sixth"):
        next(chain)  # type: ignore[call-overload]


def test_a_large_item_is_alone_on_the_way() -> None:
    limit, taken = ByteLimit(8), []

    def items() -> Iterator[Item]:
        for size in (20, 1):
            taken.append(size)
            yield Item(size)

    chain = limit.enter(items())
    assert next(chain).bytes == 20
    waiting = threading.Thread(target=lambda: next(chain))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert taken == [20]
    limit.leave(20)
    waiting.join(30)
    assert not waiting.is_alive()
    assert taken == [20, 1]


def test_a_closed_limit_lets_a_waiting_thread_end() -> None:
    limit = ByteLimit(1)
    chain = ahead(limit.enter(iter([Item(5)] * 3)))
    assert next(chain).bytes == 5  # type: ignore[call-overload]
    limit.close()
    chain.close()  # type: ignore[attr-defined]
