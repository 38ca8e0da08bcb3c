"""Options that several commands share, and what is made of them."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kit.core.durations import duration
from kit.core.errors import KitError

if TYPE_CHECKING:  # for annotations alone: --help has to be fast
    from kit.experiment.config import ExperimentConfig
    from kit.experiment.options import RunOptions

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, like configs/digits.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key: training.epochs=3.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="NAME", help="A file in configs/policies/, instead of the config's."),
]
Output = Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, submissions/, cache/.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Start anew where this experiment was made from another config.")
]
Cache = Annotated[str | None, typer.Option(metavar="DIR", help="Keep decoded images there, not in OUTPUT/cache.")]
On = Annotated[
    str | None,
    typer.Option(metavar="CLUSTER", help="Let Ray do it: ray (starts one here), auto, or ray://HOST:10001."),
]
DataRoot = Annotated[
    str | None, typer.Option("--data-root", metavar="DIR", help="With --on: holds the data on the nodes, by name.")
]
Devices = Annotated[
    int, typer.Option(metavar="N", min=1, help="With --on: N devices train each run, N batches an update.")
]
Jobs = Annotated[str, typer.Option(metavar="N", help="Runs side by side; auto: one a GPU, or what is fastest.")]
Vary = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=[A,B]", help="Compare the config with itself under other values of a key."),
]
NameOfComparison = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a comparison of several; left out: compare-A-B…")
]
MixedDevices = Annotated[
    bool, typer.Option("--mixed-devices", help="Pair runs of different kinds of device, too.")
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="CPU threads of torch in each run; left out: cores / jobs."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", metavar="TIME", help="Be done in 8h30m, 45m or 90s: what does not fit is given up."),
]
Seconds = Annotated[
    str | None, typer.Option("--seconds", metavar="N", help="--budget in seconds.", show_default=False)
]
BEGUN = time.monotonic()  # the command


def run_options(
    output: str,
    cache: str | None,
    folds: str | None,
    replace: bool,
    jobs: str,
    budget: str | None,
    **others: Any,
) -> "RunOptions":
    """Return what the command line says about runs; KitError for a number of jobs that is none.

    `others` are further fields of the options.
    """
    from kit.experiment.options import RunOptions

    return RunOptions(output, cache, folds, replace, number_of_jobs(jobs), budget, BEGUN, **others)


def one_budget(budget: str | None, seconds: str | None) -> str | None:
    """Return that of --budget and --seconds which is given; KitError for both, and for what is no time."""
    if budget is not None and seconds is not None:
        raise KitError("--budget, --seconds: they are one thing; give one of the two")
    option, text = ("--budget", budget) if seconds is None else ("--seconds", seconds)
    if text is not None:
        try:
            duration(text)
        except KitError as error:
            raise KitError(f"{option} {error}") from error
    return text


def number_of_jobs(text: str) -> int | Literal["auto"]:
    """Return the value of --jobs; KitError where it is neither auto nor a number from 1."""
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise KitError(f"--jobs {text}: expected auto or a number from 1")
    return "auto" if text == "auto" else int(text)


def chosen_folds(texts: Sequence[str] | None) -> list[tuple[str, Any]]:
    """Return the override that --fold stands for: `0,1`, and `0` and `1`, are the folds 0 and 1; none for none."""
    if not texts:
        return []
    parts = [part.strip() for part in ",".join(texts).split(",")]
    return [("folds.run", [int(part) if part.isdecimal() else part for part in parts] if parts != [""] else [])]


def names_in(text: str | None) -> list[str]:
    """Return the names in `A,B,C`."""
    return [name.strip() for name in text.split(",")] if text else []


def to_compare(
    configs: Sequence[str],
    vary: Sequence[str],
    overrides: Sequence[Any],
    policies: Sequence[str],
    size: tuple[int | None, int | None],
) -> "list[ExperimentConfig]":
    """Return the experiments that `compare` compares: the one, those of several files, or one and its variants.

    Parameters
    ----------
    configs, vary : sequence of str
        Files, and what --vary says.
    overrides, policies
        As `load_experiment` takes them, for all.
    size : tuple of (int or None, int or None)
        How many seeds, and folds; of several the seeds of those that train.

    Raises
    ------
    KitError
    """
    from kit.experiment.config import load_experiment, of_size

    if len(policies) > 1 and (vary or len(configs) > 1):
        raise KitError("--policies: experiments are compared under one policy each; name one, or give one config")
    if vary and len(configs) > 1:
        raise KitError("--vary makes experiments of one config: give one, or leave --vary out")
    if vary:
        from kit.comparison.vary import load_varied

        loaded = load_varied(configs[0], vary, overrides, policies)
    else:
        loaded = [load_experiment(config, overrides, policies) for config in configs]
    seeds, folds = size
    others = [of_size(each, seeds if each.trains else None, folds) for each in loaded[1:]]
    return [of_size(loaded[0], seeds, folds), *others]
