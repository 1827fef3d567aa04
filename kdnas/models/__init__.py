"""Architectures, teachers, students, their folders and model cards, and the schema of the latency table."""
