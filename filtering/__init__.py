"""Filtering of corpora with an exported classifier: inputs, units of work, scores of sentences, commits, the page of a run."""
