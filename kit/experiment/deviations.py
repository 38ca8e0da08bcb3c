"""What trainings did otherwise than their config says, in words: for comparisons and reports."""

from collections.abc import Iterable

from kit.core.errors import some
from kit.core.runs import RunRecord


def deviations(records: Iterable[RunRecord]) -> list[str]:
    """Return a sentence for each kind: lower rates, updates left out, smaller micro-batches."""
    lowered, skipped, smaller = [], [], []
    for record in records:
        if record.factor != 1:
            lowered.append(f"{record.key} at × {record.factor:.3g}")
        if count := sum("skipped" in each for each in record.nonfinite):
            skipped.append(f"{record.key}: {count} of {record.steps or 'all'}")
        if record.micro_batch:
            smaller.append(f"{record.key}: {record.micro_batch} images")
    lines = []
    if lowered:
        lines.append(
            "Begun anew with lower rates, as a loss was not finite, so they are not of the peak that their policy "
            f"states: {some(lowered)}."
        )
    if skipped:
        lines.append(f"Updates were left out, as their loss was not finite: {some(skipped)}.")
    if smaller:
        lines.append(
            "The device's memory was too small for the config's batch_size; smaller micro-batches made the same "
            f"updates, but batch norms saw fewer images at a time: {some(smaller)}."
        )
    return lines
