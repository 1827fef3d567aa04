"""Exports for the service."""

from ..classifier_fixture import classifier, encoder, kdnas, sentences

__all__ = ["classifier", "encoder", "kdnas", "sentences"]
