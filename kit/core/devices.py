"""Kinds of device: of which two trainings may be compared with each other."""

from kit.core.runs import RunRecord

DECIDE_BITS = ("torch", "torchvision", "timm", "albumentations")  # packages whose version is part of a kind


def kind_of(record: RunRecord) -> dict[str, str]:
    """Return the kind of device that a run was trained on, by what it tells: runs of one kind may be paired.

    `device` is its name, in runs of early versions its type alone (cpu, cuda).
    """
    told = {"device": record.device_name or record.device.partition(":")[0], "precision": record.precision}
    told["augmented_on"] = record.augmented_on
    return told | {name: record.versions[name] for name in DECIDE_BITS if name in record.versions}


def same_kind(one: RunRecord, other: RunRecord) -> bool:
    """Return whether two runs were trained on one kind of device, as far as both tell."""
    kinds = kind_of(one), kind_of(other)
    shared = set(kinds[0]) & set(kinds[1])
    if not (one.device_name and other.device_name):
        shared.discard("device")
        if one.device.partition(":")[0] != other.device.partition(":")[0]:
            return False
    return all(kinds[0][name] == kinds[1][name] for name in shared)


def kind_in_words(record: RunRecord) -> str:
    """Return the kind in words, like "Tesla T4 in fp16, torch 2.9.0, timm 1.0.26"."""
    kind = kind_of(record)
    versions = ", ".join(f"{name} {kind[name]}" for name in DECIDE_BITS if name in kind) or "torch unknown"
    there = ", augmented there" if kind["augmented_on"] == "device" else ""
    return f"{kind['device']} in {kind['precision']}{there}, {versions}"
