"""Export to ONNX Runtime and OpenVINO, and the session that runs exports."""

import sys

from kdnas.interface import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `kdnas.export(...)` works though this package has the name
