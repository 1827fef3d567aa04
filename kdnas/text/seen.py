"""A compact set of 64-bit hashes, for corpora of many million sentences."""

from array import array

FIRST_SLOTS = 1 << 16
FULL = 2 / 3  # fraction of used slots at which the table is doubled


class SeenHashes:
    """A growing set of 64-bit hashes: a table of 8 bytes per slot with open addressing.

    Python's own set needs about 100 bytes per hash. This one needs 12 to 24, and 36 while it is doubled.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def table_bytes(self) -> int:
        """Size of the table in bytes."""
        return self._slots.itemsize * len(self._slots)

    def add(self, value: int) -> bool:
        """Add a hash from 0 to 2^64 - 1; False if it was in the set. 0 counts as 1, because 0 marks an empty slot."""
        value = value or 1
        index = _slot(self._slots, value)
        if self._slots[index]:
            return False
        self._slots[index] = value
        self._count += 1
        if self._count > FULL * len(self._slots):
            self._double()
        return True

    def _double(self) -> None:
        grown = array("Q", bytes(2 * self.table_bytes))
        for value in self._slots:
            if value:
                grown[_slot(grown, value)] = value
        self._slots = grown


def _slot(slots: "array[int]", value: int) -> int:
    """Index of a value in a table of 2^n slots, or of the empty slot where it belongs."""
    last = len(slots) - 1
    index = value & last  # hashes are uniform, so their low bits are a good first slot
    while (found := slots[index]) and found != value:
        index = (index + 1) & last
    return index
