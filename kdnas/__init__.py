"""kdnas: find, distil and ship the fastest text encoder that a given CPU can run."""

from kdnas.guard import require_own_siblings

__version__ = "0.1.0"

require_own_siblings()
