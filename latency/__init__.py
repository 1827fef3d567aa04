"""The latency table: the latency of each architecture on this host."""
