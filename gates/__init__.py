"""Performance gates: is a revision slower than another one, decided side by side on the same host."""
