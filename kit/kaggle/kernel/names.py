"""What a kernel is called: its name, its slug, and the dataset of its code."""

import re
from hashlib import sha256

from kit.core.errors import KitError
from kit.experiment.config import ExperimentConfig
from kit.kaggle.kernel.folder import Kind


def default_name(experiment: ExperimentConfig, kind: Kind, notebook: bool = False) -> str:
    """Return <experiment>-<kind>, with the folds of a train kernel where not all are chosen.

    A name that would begin with a digit begins with "kit-", and that of a notebook ends with "-notebook".
    """
    chosen, name = experiment.folds.chosen, f"{experiment.name}-{kind}"
    if kind == "train" and len(chosen) < experiment.folds.k:
        name += f"-fold{'s' * (len(chosen) > 1)}-{'-'.join(map(str, chosen))}"
    return f"{'' if _begins_with_letter(name) else 'kit-'}{name}{'-notebook' * notebook}"


def slug_of(name: str) -> str:
    """Return the slug that Kaggle makes of a title; KitError where Kaggle takes none like it."""
    slug = _slug(name)
    if not 5 <= len(slug) <= 50:
        raise KitError(f"{slug!r}: a kernel's name has 5 to 50 characters, this has {len(slug)}; give --name NAME")
    if not slug[0].isalpha():  # reported: "not found" of every look at such a kernel
        raise KitError(f"{slug!r}: a kernel's name begins with a letter; give --name, like kit-{slug}")
    return slug


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _begins_with_letter(name: str) -> bool:
    return _slug(name)[:1].isalpha()


def code_slug(slug: str) -> str:
    """Return the slug of the dataset that holds the code; at most 50 characters, and another for every kernel."""
    if len(slug) <= 45:
        return f"{slug}-code"
    return f"{slug[:36].rstrip('-')}-{sha256(slug.encode()).hexdigest()[:8]}-code"
