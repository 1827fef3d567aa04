"""Serving over HTTP and filtering of corpora, from exported models alone."""
