"""Performance gates: decide whether a revision is slower than another one, with both timed alternately on the same host."""
