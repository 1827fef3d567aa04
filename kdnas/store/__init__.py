"""What lies on disk: artifacts, unfinished work, the host record, progress."""
