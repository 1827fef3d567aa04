"""Evaluation of students against their teachers, and of any model on downstream tasks."""
