"""Which options of a search do not fit together; all is checked before any work."""

from pathlib import Path

from kdnas.cluster import require_ray
from kdnas.distill.options import DistillOptions
from kdnas.errors import UsageError
from kdnas.search.options import SearchOptions
from kdnas.search.recording import HIDDEN_STATE


def require_compatible(replay: Path | None, ray: str | None) -> None:
    """Raise UsageError if a replay is combined with a cluster, or if the package of the cluster is not installed."""
    if ray is not None and replay is not None:
        raise UsageError(f"ray is '{ray}'; it does not work with --replay: leave it out")
    require_ray(ray)


def require_full(options: SearchOptions, distill: DistillOptions) -> None:
    """Raise UsageError if full distillation has no equal budget for all candidates, or would ignore the proxy's objective."""
    if options.evaluator == "full" and options.proxy.objective not in ("hidden-state", distill.objective):
        raise UsageError(
            f"proxy.objective is '{options.proxy.objective}', and evaluator is 'full', which distils with distill.objective, "
            f"'{distill.objective}': set --distill.objective instead"
        )
    if options.evaluator == "full" and distill.steps is None:
        raise UsageError(
            "evaluator is 'full' and distill.steps is not given; minutes would give each shape a different budget: "
            "add --distill.steps"
        )


def require_family(
    options: SearchOptions, family: Path | None, compare: Path | None, replay: Path | None, ray: str | None
) -> None:
    """Raise UsageError if the options of the evaluator `family` do not fit together."""
    if options.evaluator != "family":
        for name, value in (("family", family), ("compare", compare)):
            if value is not None:
                raise UsageError(
                    f"{name} is '{value}'; it works only with --evaluator family: add that, or leave it out"
                )
        return
    if family is None:
        raise UsageError(
            "evaluator is 'family' and family is not given; add --family and what `kdnas autodistil` printed"
        )
    if replay is not None:
        raise UsageError(f"replay is '{replay}' and evaluator is 'family'; to report how well it ranks use --compare")
    if ray is not None:
        raise UsageError(f"ray is '{ray}' and evaluator is 'family', which distils nothing: leave --ray out")
    if options.proxy.objective != HIDDEN_STATE:
        raise UsageError(
            f"proxy.objective is '{options.proxy.objective}' and evaluator is 'family', whose losses are of hidden states: "
            "leave --proxy.objective out"
        )


def require_distilling(options: SearchOptions) -> None:
    """Raise UsageError if the evaluator needs a finished family."""
    if options.evaluator == "family":
        raise UsageError("evaluator is 'family'; only `kdnas search --family` has a family: use `proxy` or `full`")
