"""kdnas: find, distil and ship the fastest text encoder that a given CPU can run."""

__version__ = "0.1.0"
