"""Evaluation: what a student keeps of its teacher."""
