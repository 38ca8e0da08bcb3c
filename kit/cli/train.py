"""The commands that train, predict and label: parse, call, print."""

from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.options import (
    BudgetOption,
    Cache,
    Config,
    DataRoot,
    Devices,
    Jobs,
    MixedDevices,
    NameOfComparison,
    On,
    Output,
    Overrides,
    Policies,
    Replace,
    Seconds,
    Threads,
    Vary,
    chosen_folds,
    names_in,
    one_budget,
    run_options,
)
from kit.cli.output import give, say
from kit.core.errors import KitError
from kit.model.imports import explain_broken_imports

if TYPE_CHECKING:  # for annotations alone: --help has to be fast
    from kit.experiment.predict import PredictResult


def run(
    config: Config,
    overrides: Overrides = None,
    policy: Policies = None,
    fold: Annotated[
        list[str] | None, typer.Option(metavar="0,1", help="Train these folds only, like --set folds.run=[0,1].")
    ] = None,
    output: Output = ".",
    replace: Replace = False,
    folds: Annotated[
        str | None, typer.Option(metavar="FILE", help="Follow this fold plan: a CSV with columns id and fold.")
    ] = None,
    cache: Cache = None,
    jobs: Jobs = "auto",
    threads: Threads = None,
    budget: BudgetOption = None,
    seconds: Seconds = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="POLICY/SEED/FOLD", help="Train this run only: flat/seed0/fold1; repeatable."),
    ] = None,
    on: On = None,
    data_root: DataRoot = None,
    devices: Devices = 1,
) -> None:
    """Train every policy × seed × fold that is not there yet; score; write the submission."""
    from kit.experiment.config import load_experiment

    budget = one_budget(budget, seconds)
    experiment = load_experiment(config, [*(overrides or []), *chosen_folds(fold)], policy or [])
    from kit.experiment.run import run

    cluster = {"on": on, "data_root": data_root, "devices": devices}
    options = run_options(
        output, cache, folds, replace, jobs, budget, only=tuple(only or ()), threads=threads, **cluster
    )
    result = run(experiment, options, say=say)
    from kit.cli.show import show_result

    give(result, show_result)
    if result.left:
        part = f"{result.trained} of {result.trained + result.left} runs"
        held = "" if result.policies else "no run is finished, and the submission is the prior: "
        raise KitError(f"{held}the budget allowed no more than {part}; the same command trains the others")


def compare(
    configs: Annotated[
        list[str], typer.Argument(metavar="CONFIG...", help="One: its policies. Several: these with the first.")
    ],
    overrides: Overrides = None,
    policies: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Compare these, instead of the config's; of several one.")
    ] = None,
    vary: Vary = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Train every policy and fold N times.")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", min=1, help="Train the first K folds only.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare the others with this one; left out: the first.")
    ] = None,
    name: NameOfComparison = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Train nothing: compare the runs that are there.")
    ] = False,
    mixed_devices: MixedDevices = False,
    output: Output = ".",
    replace: Replace = False,
    cache: Cache = None,
    jobs: Jobs = "auto",
    threads: Threads = None,
    budget: BudgetOption = None,
    seconds: Seconds = None,
    on: On = None,
    data_root: DataRoot = None,
    devices: Devices = 1,
) -> None:
    """Train policies, or experiments, × folds × seeds on equal terms; say which wins, by how much, how surely."""
    from kit.cli.options import to_compare

    budget = one_budget(budget, seconds)
    if stored and (replace or budget is not None):
        raise KitError("--stored compares what is there: leave out --replace and --budget")
    extra: list[tuple[str, object]] = [("compare.baseline", baseline)] if baseline else []
    extra += [("compare.mixed_devices", True)] if mixed_devices else []
    experiments = to_compare(configs, vary or [], [*(overrides or []), *extra], names_in(policies), (seeds, folds))
    if len(experiments) > 1 and baseline:
        raise KitError("--baseline names a policy; of several experiments the first is the baseline")
    if not stored:
        explain_broken_imports()
    from kit.cli.show_comparison import show_comparison
    from kit.comparison.compare import compare

    cluster = {"on": on, "data_root": data_root, "devices": devices}
    options = run_options(output, cache, None, replace, jobs, budget, threads=threads, **cluster)
    compared = compare(experiments, options, say=say, stored=stored, name=name)
    if compared.main:
        from kit.report.gather import report

        give(compared, show_comparison)
        say(f"Report: {report(compared.folder, options.dirs, say=say)}")
    if compared.left:
        raise KitError(f"the budget left {compared.left} runs; the same command trains them and compares all")


def features(
    config: Config,
    overrides: Overrides = None,
    block: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="last, a depth group by name or number, or all: each in turn."),
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="logistic, ridge, svm, knn or prototypes; repeatable.")
    ] = None,
    views: Annotated[
        str | None, typer.Option(metavar="hflip", help="Features are the mean over an image and its mirror; none.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Left out: the config's and -features.")] = None,
    output: Output = ".",
    replace: Replace = False,
    folds: Annotated[
        str | None, typer.Option(metavar="FILE", help="Follow this fold plan: a CSV with columns id and fold.")
    ] = None,
    cache: Cache = None,
    threads: Threads = None,
    budget: BudgetOption = None,
    seconds: Seconds = None,
) -> None:
    """Fit heads over the features of a frozen network: computed once, then seconds a head; score, submission."""
    from kit.experiment.config import load_experiment

    budget = one_budget(budget, seconds)
    experiment = load_experiment(config, overrides or [])
    from kit.cli.show import show_features
    from kit.comparison.features import features

    options = run_options(output, cache, folds, replace, "1", budget, threads=threads)
    stated = None if views is None else [] if views == "none" else names_in(views)
    made = features(experiment, options, block=block, heads=head or (), views=stated, name=name, say=say)
    give(made, show_features)
    if made.left:
        raise KitError(f"the budget left {made.left} heads; the same command fits them")


def predict(
    config: Config,
    overrides: Overrides = None,
    policy: Policies = None,
    runs: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Holds finished runs; left out: OUTPUT/runs.")
    ] = None,
    submission: Annotated[str, typer.Option(metavar="FILE", help="Written at once, and again when done.")] = (
        "submission.csv"
    ),
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/ and cache/.")] = ".",
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="Keep decoded images there.")] = None,
    budget: BudgetOption = None,
    seconds: Seconds = None,
    on: On = None,
    data_root: DataRoot = None,
) -> None:
    """Predict the test set that is there with trained runs, without the train table."""
    from kit.experiment.config import load_experiment

    budget = one_budget(budget, seconds)
    experiment = load_experiment(config, overrides or [], policy or [])
    explain_broken_imports()
    from kit.experiment.predict import predict_test

    options = run_options(output, cache, None, False, "auto", None, on=on, data_root=data_root)

    def show(made: "PredictResult") -> None:
        short = f"; {made.in_one_view} of them in one view for want of time" if made.in_one_view else ""
        print(f"{made.submission}: {made.rows} rows, the mean of {made.models} of {made.of} models{short}")

    give(predict_test(experiment, runs or (), submission, options, budget=budget, say=say), show)


def soup(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="In runs/: the policy it began with, or EXPERIMENT/POLICY.")
    ],
    output: Output = ".",
    cache: Cache = None,
    threads: Threads = None,
) -> None:
    """Average the weights of each fold's seeds to one model; keep it where it is no worse out of fold."""
    explain_broken_imports()
    from kit.cli.show import show_soup
    from kit.experiment.soup.make import soup

    give(soup(experiment, run_options(output, cache, None, False, "1", None, threads=threads), say=say), show_soup)


def pseudo(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="In runs/, trained to the end.")],
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose models label; left out: the one it began with.")
    ] = None,
    at_least: Annotated[
        float | None,
        typer.Option(metavar="P", help="Take rows of this confidence; left out: 0.9, and with --soft all."),
    ] = None,
    share: Annotated[
        float | None, typer.Option(metavar="S", help="Take this share of each fold's rows, the surest.")
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Labels are the probabilities.")] = False,
    weight: Annotated[float, typer.Option(metavar="W", help="What each row counts in the loss.")] = 1.0,
    test: Annotated[bool, typer.Option("--test", help="Label the test rows, as without --folder.")] = False,
    folder: Annotated[
        str | None, typer.Option(metavar="DIR", help="Label the images in it instead, with the saved weights.")
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="ROUND", help="A round that followed; repeatable; the last one's models label."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the next round; left out: EXPERIMENT-pseudo.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over the labels and the config.")] = False,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/ and cache/.")] = ".",
    cache: Cache = None,
) -> None:
    """Label the test rows, or a folder of images, fold by fold, and write the config that trains on that."""
    if test and folder is not None:
        raise KitError("--test, --folder: give one of the two, and then the other with the next round's config")
    explain_broken_imports()
    from kit.cli.show_pseudo import show_pseudo
    from kit.experiment.pseudo import pseudo
    from kit.experiment.pseudo_labels import PseudoOptions

    options = PseudoOptions(policy, at_least, share, soft, weight, folder, tuple(after or ()), name, replace)
    give(pseudo(experiment, options, output, cache, say), show_pseudo)
