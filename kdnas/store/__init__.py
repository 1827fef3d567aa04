"""Artifacts on disk, unfinished work, the host record and progress messages."""
