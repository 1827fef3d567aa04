"""The model card of a classifier that `kdnas hap` made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdnas.evaluation.hap_classifier.measure import shown_examples
from kdnas.evaluation.report import METADATA
from kdnas.models.card import LONGEST, demoted, inherited, read_card, with_metadata

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def card(
    report: Mapping[str, Any], thresholds: Mapping[str, Any], errors: Sequence[Mapping[str, Any]], encoder: Path
) -> str:
    """README.md: uses that it is for and not for, training rows, scores, thresholds, calibration and errors.

    Args:
        report: content of report.json.
        thresholds: content of thresholds.json.
        errors: what `kdnas.evaluation.hap_classifier.measure.worst_errors` returns.
        encoder: folder of the original encoder, whose card is quoted.
    """
    from jinja2 import Environment, StrictUndefined

    functional = report["functional"]["at_half"]["languages"]
    languages = sorted({code for codes in report["rows"]["train"].values() for code in codes if code})
    ((name, value),) = thresholds["wanted"].items()
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(TEMPLATE.read_text())
    text = template.render(
        report={
            **report,
            "rows": {"swapped_copies": 0, "profanity_from_word_lists": 0, "unlabelled": 0, **report["rows"]},
        },
        languages=languages,
        parts=[("in the trained sets, mean", report["in_set"]), ("outside, mean", report["out_of_set"])],
        functional=functional,
        groups=list(dict.fromkeys(name for one in functional.values() for name in one["by_group"])),
        functionalities=list(dict.fromkeys(name for one in functional.values() for name in one["by_functionality"])),
        wanted=f"a {name.replace('_', ' ').replace('false positive', 'false-positive')} of {value:g}",
        thresholds=[
            (label, code, one)
            for label, entry in thresholds["labels"].items()
            for code, one in [("all", entry), *entry["languages"].items()]
        ],
        examples=[
            ("Called hateful, annotated as not", shown_examples(errors, 0)),
            ("Missed", shown_examples(errors, 1)),
        ],
    )
    _, original = read_card(encoder)
    origin = f"\n## The encoder\n\n{demoted(original)}\n" if 0 < len(original) <= LONGEST else ""
    metadata = {**inherited(encoder), **METADATA, "pipeline_tag": "text-classification", "language": languages}
    return with_metadata(metadata, text + origin)
