"""`kdnas peers`: one exported encoder in every library that a user may pick for it, in one run on this host.

`libraries` has one file for each library. A file states its pins, how it prepares a model and how it opens it (`Library`). Each
runs in a process of its own (`worker`), and, if the kdnas environment lacks it, in an environment of its own (`environment`).
"""
