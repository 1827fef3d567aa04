"""Architectures, teachers, students, their folders and cards, and the latency table's schema."""
