"""A library in a few lines, which shows the seam. Each test appends a function `before_call`, and other constants."""

import os  # noqa: F401 (for `before_call`)
from pathlib import Path

import numpy as np

from kdnas.latency.peers.libraries import Opened

PACKAGES = ("numpy",)
REQUIREMENTS = ("dummy==1.0",)
FROM_SOURCE = ()
VARIANTS = ("plain",)
CHOICES = {"plain": ({"width": 4}, {"width": 8})}
SAME_MODEL = False
SEED = 7  # another seed is another model


def missing(job):
    return None


def prepare(job):
    (job.prepared / "seed").write_text(str(SEED))


def open_model(job):
    width = job.choice["width"]
    seed = int((job.prepared / "seed").read_text())

    def embed(texts):
        state = Path(__file__).with_name("calls")
        before_call(state, texts)  # noqa: F821 (each test adds one)
        return np.array([np.random.default_rng([seed, *text.encode()]).normal(size=width) for text in texts])

    return Opened(embed, (job.prepared,))
