"""AutoDistil (arXiv 2201.12507): one training makes a family of students that share their weights."""

import sys

from kdnas.interface import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `kdnas.autodistil(...)` works although this package has that name
