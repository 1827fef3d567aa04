"""Shared parts of all result pages: template, style, number formats."""
