"""Corpora: read text from any source, and tokenise its sentences."""
