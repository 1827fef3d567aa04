"""Check that the sibling packages are ours: another `evaluation` in site-packages would otherwise win silently."""

from importlib.util import find_spec
from pathlib import Path

SIBLINGS = ("latency", "export", "evaluation", "gates", "serving")


def require_own_siblings(root: Path = Path(__file__).resolve().parent.parent) -> None:
    """Raise ImportError if a sibling package would be imported from a folder other than `root`."""
    for name in SIBLINGS:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found != root:
            raise ImportError(
                f"kdnas comes from {root}, but its package '{name}' comes from {found}. "
                f"Uninstall the other '{name}', or run in an environment of kdnas alone (make setup)."
            )
