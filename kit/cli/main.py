"""The command line: parse, call, print."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.cluster import cluster_app
from kit.cli.kernel import kernel_app
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
    explain_broken_imports,
    names_in,
    one_budget,
    run_options,
)
from kit.cli.output import Commands, all_printed, give, lines_of, print_errors, prints, say
from kit.core.errors import KitError, some
from kit.core.stopping import OUT_OF_TIME, Stopped, handled

if TYPE_CHECKING:  # for annotations alone: --help has to be fast
    from kit.experiment.grade import Grade
    from kit.experiment.predict import PredictResult
    from kit.kaggle.submission_log import LogEntry

app = Commands(
    name="kit",
    help="Train fold models under a learning-rate policy, score them out of fold, hand in a submission.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(kernel_app, name="kernel")
app.add_typer(cluster_app, name="cluster")

SHARED = ("run", "compare", "find-lr", "lr", "predict")  # commands that several processes carry out together


@app.callback()
def _need_one_process(context: typer.Context) -> None:
    """Refuse to do with several processes, by torchrun, what each would do by itself."""
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        command = context.invoked_subcommand
        if command not in SHARED:
            if not prints():
                raise typer.Exit(1)
            raise KitError(f"{command} takes one process; torchrun is for {some(SHARED)}")


@app.command()
def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A competition's: tables and images.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The config to write; left out: the folder's name and .yaml."
        ),
    ] = None,
) -> None:
    """Look at a folder and write a first config: what was found, with guesses and questions in its comments."""
    from kit.cli.show import show_first_config
    from kit.experiment.init import init

    made = init(folder, output)
    give(made, show_first_config)
    if made.fault:
        raise KitError(f"{made.config} is written, but does not load yet; {made.fault}")


@app.command()
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
    explain_broken_imports()
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


@app.command()
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


@app.command()
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
    explain_broken_imports()
    from kit.cli.show import show_features
    from kit.comparison.features import features

    options = run_options(output, cache, folds, replace, "1", budget, threads=threads)
    stated = None if views is None else [] if views == "none" else names_in(views)
    made = features(experiment, options, block=block, heads=head or (), views=stated, name=name, say=say)
    give(made, show_features)
    if made.left:
        raise KitError(f"the budget left {made.left} heads; the same command fits them")


@app.command()
def report(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Its name in OUTPUT/runs, or its folder.")
    ],
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/ and cache/.")] = ".",
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="Decoded images are there.")] = None,
) -> None:
    """Write report.html: what was compared, what it gave, and what happened inside."""
    from kit.report.gather import write_report

    give(write_report(experiment, output, cache, say), lambda written: print(f"Report: {written.file}"))


@app.command()
def probe(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folders like runs/thread/uniform/seed0/fold0.")
    ],
    output: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Of the names of the pictures; left out: beside the run, or probes."),
    ] = None,
) -> None:
    """Draw what happened inside: activations over time, learning by depth, the butterfly; several side by side."""
    from kit.report.probes import probe

    give(probe(runs, output), lambda drawn: print(*drawn.files, sep="\n"))


@app.command()
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


@app.command()
def audit(
    config: Config,
    overrides: Overrides = None,
    png: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw near-identical pairs there, not in OUTPUT/audit-NAME.png."),
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds cache/.")] = ".",
) -> None:
    """Look at the data before training: balance, duplicates, groups, sizes, broken files, and what to set."""
    from kit.core.files import need_output
    from kit.experiment.config import load_experiment

    experiment = load_experiment(config, overrides or [])
    need_output("--png", png, (".png", ".svg", ".pdf"))
    explain_broken_imports()
    from kit.cli.show_audit import show_audit
    from kit.report.audit import audit

    give(audit(experiment, output, png), show_audit)


@app.command()
def policies(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="List those beside it, too.")] = None,
) -> None:
    """List the ready policies, and what policies can be made of, with a sentence each."""
    from kit.cli.show import show_policies
    from kit.lr.registry import policies

    give(policies(config), lambda listed: show_policies(listed.ready, listed.blocks))


@app.command()
def lr(
    config: Config,
    overrides: Overrides = None,
    policy: Policies = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write the step × group matrix there.")] = None,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw lines and a heat map there.")] = None,
) -> None:
    """Show what a policy does to every depth group, step by step, without training."""
    from kit.core.files import need_output
    from kit.experiment.config import load_experiment

    experiment = load_experiment(config, overrides or [], policy or [])
    need_output("--csv", csv, (".csv",))
    need_output("--png", png, (".png", ".svg", ".pdf"))
    explain_broken_imports()
    from kit.cli.show import show_previews
    from kit.experiment.preview import draw, preview, write_table

    previewed = preview(experiment)
    give(previewed, show_previews)
    if csv and prints():
        write_table(previewed.policies, csv)
    if png and prints():
        draw(previewed.policies, png)


@app.command()
def find_lr(
    config: Config,
    overrides: Overrides = None,
    policy: Policies = None,
    start: Annotated[float, typer.Option(help="The first peak rate.")] = 1e-7,
    end: Annotated[float, typer.Option(help="The last peak rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Updates from the first to the last.")] = 100,
    by_depth: Annotated[
        bool, typer.Option("--by-depth", help="Each depth group in turn, the others at the policy's rates.")
    ] = False,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write rates and losses there.")] = None,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the loss over the rate there.")] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds cache/.")] = ".",
    on: On = None,
    data_root: DataRoot = None,
) -> None:
    """Range test: raise all rates together until the loss diverges, and suggest a peak rate."""
    from kit.core.files import need_output
    from kit.experiment.config import load_experiment

    experiment = load_experiment(config, overrides or [], policy or [])
    need_output("--csv", csv, (".csv",))
    need_output("--png", png, (".png", ".svg", ".pdf"))
    explain_broken_imports()
    from kit.cli.show import show_found
    from kit.experiment.find_lr import RangeSearch, draw, find_lr, write_table

    search = RangeSearch(start, end, steps, by_depth)
    options = run_options(output, None, None, False, "auto", None, on=on, data_root=data_root)
    found = find_lr(experiment, search, options, say)
    if csv and prints():
        write_table(found, csv)
    if png and prints():
        draw(found, png)
    give(found, lambda found: show_found(found, experiment.policies[found.policy]))


@app.command()
def fetch_data(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="The competition, as in its address on Kaggle.")],
    to: Annotated[str | None, typer.Option(metavar="DIR", help="Left out: data/SLUG.")] = None,
) -> None:
    """Download a competition from Kaggle and unpack it."""
    from kit.kaggle.commands import fetch_data

    give(fetch_data(slug, to, say=say), lambda fetched: None)  # it has said all


@app.command()
def submit(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="A file in submissions/.")] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="DIR", help="An infer kernel instead, for a code competition.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="CONFIG", help="What FILE is of; left out: the experiment of its name.")
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Left out: the file's name and the CV score.")
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Even if the same was submitted before, or none is left today.")
    ] = False,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, submissions/.")] = ".",
) -> None:
    """Hand in a submission: validated, logged in submissions/log.csv, waits for the score."""
    from kit.kaggle.commands import submit

    def show(entry: "LogEntry") -> None:
        private = f", private {entry.private}" if entry.private else ""
        cv = f"; CV {entry.cv}" if entry.cv else ""
        print(f"{entry.file}: public score {entry.public or 'none'}{private}{cv}")

    give(
        submit(file, kernel=kernel, config=config, message=message, again=again, output=output, say=say),
        show,
    )


@app.command()
def blend(
    members: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...",
            help="Two or more in runs/: EXPERIMENT is the policy it began with, EXPERIMENT/POLICY another; after "
            "the first also a folder with oof.csv and test.csv of another tool.",
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Left out: blend-MEMBER-MEMBER…")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="single, mean, rank mean, greedy or stack; left out: the best but stack."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the first member: scoring.average=micro."),
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, submissions/.")] = ".",
) -> None:
    """Blend experiments by the method with the best cross-fitted score; write the submission."""
    from kit.cli.show import show_blend
    from kit.experiment.blend import blend

    give(blend(members, output, name, method=method, overrides=overrides or [], say=say), show_blend)


@app.command()
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


@app.command()
def views(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Its name in OUTPUT/runs, or its folder.")
    ],
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Left out: the one it began with.")] = None,
    views: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Like hflip,d4,hflip+scale=0.8,size=280,tiles=2:max,hflip+logits."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N seeds; left out: all.")
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, cache/.")] = ".",
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="Keep decoded images there.")] = None,
) -> None:
    """What views of the images at prediction give on out-of-fold rows, and what they cost."""
    explain_broken_imports()
    from kit.cli.show_views import show_views
    from kit.comparison.compare_views import compare_views

    give(compare_views(experiment, views or (), policy, seeds, output, cache, say=say), show_views)


@app.command()
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


@app.command()
def submissions(
    competition: Annotated[str | None, typer.Option(metavar="SLUG", help="Those to this one alone.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask Kaggle for scores that came later.")] = False,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds submissions/.")] = ".",
) -> None:
    """Show what was handed in, and whether CV orders it as the public score does."""
    from kit.cli.show_submissions import show_submissions
    from kit.kaggle.commands import list_submissions

    give(list_submissions(competition, refresh=refresh, output=output, say=say), show_submissions)


@app.command()
def grade(
    submission: Annotated[str, typer.Argument(metavar="SUBMISSION", help="A submission file.")],
    solution: Annotated[
        str, typer.Argument(metavar="SOLUTION", help="The test labels: ids and labels, in any order.")
    ],
    config: Annotated[str, typer.Option(metavar="CONFIG", help="Tells label format and metric.")],
    overrides: Overrides = None,
) -> None:
    """The competition's metric of a submission, or precisely why it is invalid."""
    from kit.experiment.config import load_experiment
    from kit.experiment.grade import grade

    def show(graded: "Grade") -> None:
        ignored = f", {graded.ignored} more are ignored" if graded.ignored else ""
        print("\n".join([f"{graded.metric} {graded.value:.4f} ({graded.rows} rows{ignored})", *graded.notes]))

    give(grade(submission, solution, load_experiment(config, overrides or [])), show)


@app.command()
def doctor(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUNS...]", help="runs/, experiments or single runs: check these instead."),
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Where runs/ and cache/ will be.")] = ".",
) -> None:
    """Check Python, packages, GPU, disk and folders, or the files of runs; and what to do about what is broken."""
    from kit.cli.doctor import doctor

    diagnosis = doctor(output, runs or ())
    if runs:
        from kit.cli.show_runs import show_runs

        give(diagnosis, lambda diagnosis: show_runs(diagnosis.folders))
    else:
        give(diagnosis, lambda diagnosis: print(*diagnosis.findings, sep="\n"))
    if diagnosis.broken:
        raise typer.Exit(1)


def main() -> None:
    """Runs the command line; errors, and what a signal stops, become lines on stderr and exit codes."""
    try:
        with all_printed(), handled():
            app()
    except Stopped as stopped:
        if stopped.code == OUT_OF_TIME:  # nobody asked for that
            print_errors(lines_of(stopped))
        elif prints():
            print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except Exception as error:
        if not (lines := lines_of(error)):
            raise
        print_errors(lines)
        sys.exit(1)
