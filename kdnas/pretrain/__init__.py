"""A teacher of one's own: a Unigram tokenizer and a masked language model, where no pretrained encoder is at hand."""

import sys

from kdnas.interface import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `kdnas.pretrain(...)` works though this package has the name
