"""The latency table: what each architecture costs on this host."""
