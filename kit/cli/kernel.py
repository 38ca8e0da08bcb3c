"""The command line of `python -m kit kernel …`: parse, call, print."""

import contextlib
import gc
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kit.cli.options import Config, Overrides, Policies, chosen_folds
from kit.cli.output import Commands, give, say, stop
from kit.core.errors import KitError
from kit.core.stopping import Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.kaggle.commands import KernelImageResult, KernelWeightsResult, KernelWheelsResult
    from kit.kaggle.kernel.build import KernelBuildResult
    from kit.kaggle.kernel.commands import KernelPushResult, KernelWaitResult
    from kit.kaggle.kernel.ended import EndedSession
    from kit.kaggle.kernel.pool import KernelFetchResult
    from kit.kaggle.kernel.probe import KernelProbeResult
    from kit.kaggle.rehearsal.rehearse import RehearsalVerdict

kernel_app = Commands(
    help="The experiment as Kaggle kernels: build, rehearse, push, wait, fetch.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[str, typer.Option(metavar="DIR", help="Holds kernels/build/, runs/, submissions/.")]
Dirs = Annotated[list[str] | None, typer.Argument(metavar="[DIR]...", help="Built kernels.")]
All = Annotated[bool, typer.Option("--all", help="Every train kernel in kernels/build.")]
Dir = Annotated[str, typer.Argument(metavar="DIR", help="A built kernel: kernels/build/NAME.")]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage. Imports make many objects and no garbage: a build takes a sixth less time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@kernel_app.command()
def probe(
    gpu: Annotated[bool, typer.Option("--gpu", help="A session with GPUs.")] = False,
    failures: Annotated[
        bool, typer.Option("--failures", help="Two kernels more: one that fails, one past its limit of a minute.")
    ] = False,
    attach: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF",
            help="To see where it is mounted: a competition's SLUG, OWNER/SLUG of a dataset; repeat.",
        ),
    ] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Here alone; nothing is pushed or kept.")] = False,
    output: Output = ".",
) -> None:
    """Ask a real session on Kaggle what it is like, by a private kernel of two minutes; and keep it."""
    from kit.kaggle.kernel.probe import probe

    def show(found: "KernelProbeResult") -> None:
        from kit.cli.show_probe import show_probe

        show_probe(found, gpu)

    give(probe(gpu=gpu, failures=failures, attach=attach or (), rehearse=rehearse, output=output, say=say), show)


@kernel_app.command()
@_uncollected()
def build(
    config: Config,
    kind: Annotated[
        Literal["train", "infer"], typer.Option(help="train: weights and predictions; infer: submission.csv.")
    ],
    overrides: Overrides = None,
    policy: Policies = None,
    fold: Annotated[list[str] | None, typer.Option(metavar="0,1", help="Train these folds only.")] = None,
    fold_each: Annotated[bool, typer.Option("--fold-each", help="A kernel for each fold.")] = False,
    name: Annotated[str | None, typer.Option(help="Of the kernel; left out: experiment, kind, folds.")] = None,
    notebook: Annotated[bool, typer.Option("--notebook", help="An .ipynb instead of a script.")] = False,
    output: Output = ".",
) -> None:
    """Write kernels/build/NAME/: metadata and one code file that carries kit, config and folds."""
    from kit.experiment.config import load_experiment
    from kit.kaggle.kernel.build import build_all
    from kit.kaggle.kernel.code_file import shareable_command

    experiment = load_experiment(config, [*(overrides or []), *chosen_folds(fold)], policy or [])
    if fold and kind == "infer":
        raise KitError("--fold, --fold-each: an infer kernel predicts with all folds that are attached")
    command = shareable_command([word for word in sys.argv[1:] if word != "--json"])
    give(
        build_all(
            experiment, kind, fold_each=fold_each, name=name, notebook=notebook, output=output, command=command
        ),
        _show_built,
    )


def _show_built(built: "KernelBuildResult") -> None:
    """Print the files of the first kernel, which are those of all, then a line and the notes of each."""
    for path, size in built.kernels[0].files.items():
        print(f"{size:9,}  {path}")
    for made in built.kernels:
        print(f"{made.folder.path}: {len(made.files)} files in {made.code_bytes / 1000:.0f} kB of code")
        for note in made.notes:
            print(f"  {note}")


def _need_rehearsal() -> None:
    """Raise KitError in a kernel, whose kit leaves out what rehearses."""
    if find_spec("kit.kaggle.rehearsal.rehearse") is None:
        raise KitError("kernel rehearse: the kit of a kernel rehearses none; run it where the whole kit is")


@kernel_app.command()
def rehearse(
    folder: Dir,
    test_rows: Annotated[
        str | None, typer.Option(metavar="0|1|3|x5", help="Another test set, as in Kaggle's rerun.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds; left out: kernel.hours, or infer_hours.")
    ] = None,
    mounts: Annotated[
        Literal["nested", "flat"] | None,
        typer.Option(
            help="/kaggle/input/competitions/SLUG, or /kaggle/input/SLUG; left out: as probed, else nested."
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="OWNER/SLUG=DIR", help="What stands for a dataset, kernel, model, competition."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="For a short rehearsal of the same file: training.epochs=1."
        ),
    ] = None,
    python: Annotated[
        str, typer.Option(metavar="FILE", help="The interpreter; left out: this one.")
    ] = sys.executable,
    isolation: Annotated[
        Literal["bubblewrap", "unshare", "redirect"] | None,
        typer.Option(help="Left out: the best that works here."),
    ] = None,
) -> None:
    """Run a built kernel as Kaggle would, without network or credentials, and judge what it leaves."""
    _need_rehearsal()
    from kit.kaggle.rehearsal.rehearse import RehearsalOptions, rehearse

    options = RehearsalOptions(
        test_rows=test_rows,
        time_limit=time_limit,
        form=mounts,
        sources=_sources(source or []),
        python=python,
        isolation=isolation,
        overrides=overrides or (),
    )

    def show(verdict: "RehearsalVerdict") -> None:
        print(f"\nverdict ({verdict.isolation}; outputs in {verdict.working})")
        for check in verdict.checks:
            print(check)

    verdict = rehearse(folder, options, say)
    give(verdict, show)
    if not verdict.passed:
        raise typer.Exit(1)


@kernel_app.command()
def push(
    folders: Dirs = None,
    everything: All = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the kernels have ended.")] = False,
    sessions: Annotated[int, typer.Option(min=1, help="How many may run at once.")] = 2,
    unrehearsed: Annotated[
        bool, typer.Option("--unrehearsed", help="Also what did not pass a rehearsal since it was built.")
    ] = False,
    output: Output = ".",
) -> None:
    """Send kernels to Kaggle, which runs them; --all, and more than one, are pushed as sessions get free."""
    from kit.kaggle.kernel.commands import push

    try:
        pushed = push(
            folders or [],
            everything=everything,
            wait=wait,
            sessions=sessions,
            unrehearsed=unrehearsed,
            output=output,
            say=say,
        )
    except KeyboardInterrupt as error:
        code = error.code if isinstance(error, Interrupted) else 130
        told = error.told if isinstance(error, Interrupted) else ""
        stop(f"interrupted {told}" if told else "interrupted; what was pushed before runs on", code)
    give(pushed, _show_ended)
    _exit_as_ended(pushed.ended)


@kernel_app.command()
def wait(folder: Dir) -> None:
    """Wait until the pushed version has ended; exit code 0: complete, 3: failed, 4: cancelled."""
    from kit.kaggle.kernel.commands import wait

    waited = wait(folder, say=say)
    give(waited, _show_ended)
    _exit_as_ended(waited.ended)


@kernel_app.command()
def status(folders: Dirs = None, everything: All = False, output: Output = ".") -> None:
    """Tell how far the pushed versions are."""
    from kit.kaggle.kernel.commands import status

    told = status(folders or [], everything=everything, output=output, say=say)
    give(told, lambda told: print(*told.kernels, sep="\n"))


@kernel_app.command()
def logs(
    folder: Dir, follow: Annotated[bool, typer.Option("--follow", "-f", help="As they come.")] = False
) -> None:
    """Print the log of the pushed version."""
    from kit.kaggle.kernel.commands import logs

    give(logs(folder, follow=follow, say=say), lambda log: None)  # the lines are said as they come


@kernel_app.command()
def fetch(folders: Dirs = None, everything: All = False, output: Output = ".") -> None:
    """Bring the outputs home: into kernels/build/NAME/output, and the runs into runs/, where they pool."""
    from kit.kaggle.kernel.pool import fetch_and_pool

    fetched = fetch_and_pool(folders or [], everything=everything, output=output, say=say)
    give(fetched, _show_fetched)
    if fetched.troubles:
        raise KitError("\n".join(fetched.troubles))


@kernel_app.command()
def wheels(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Becomes a dataset: kernels/datasets/NAME.")],
    dataset: Annotated[str, typer.Option(metavar="OWNER/SLUG", help="The dataset's name on Kaggle.")],
    requirements: Annotated[str, typer.Option(metavar="FILE", help="What the kernels need.")] = "requirements.txt",
    python: Annotated[
        str | None,
        typer.Option(metavar="3.12|3.13|both", help="The image's; left out: as probed, else the first."),
    ] = None,
) -> None:
    """Collect the wheels of what Kaggle's image lacks into a dataset's folder."""
    from kit.kaggle.commands import collect_wheels

    def show(collected: "KernelWheelsResult") -> None:
        if not collected.lacking:
            image = f"Kaggle's image (Python {' and '.join(collected.pythons)})"
            print(f"{image} has all that {requirements} names; no wheels are needed")
            return
        print(f"{folder}: {len(collected.wheels)} wheels")
        print(f"next: python -m kit kernel upload {folder}; then name {dataset} in kernel.datasets")

    give(collect_wheels(folder, dataset, requirements, python=python, say=say), show)


@kernel_app.command()
def weights(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .safetensors, .pth, .pt or .bin file.")],
    to: Annotated[
        str, typer.Option(metavar="REF", help="OWNER/SLUG of a dataset, or OWNER/MODEL/FRAMEWORK/VARIATION.")
    ],
    folder: Annotated[str | None, typer.Option(metavar="DIR", help="Left out: kernels/datasets/SLUG.")] = None,
) -> None:
    """Put a weight file into a dataset's or a model's folder, with its metadata."""
    from kit.kaggle.commands import place_weights

    def show(placed: "KernelWeightsResult") -> None:
        print(placed.file)
        at = placed.folder
        if to.count("/") == 1:
            print(f"next: python -m kit kernel upload {at}; then name {to} in kernel.datasets")
        else:
            print(f"next: kaggle models create -p {at} && kaggle models variations create -p {at}")
            print(f"then name {to}/1 in kernel.models")

    give(place_weights(file, to, folder), show)


@kernel_app.command()
def upload(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder with dataset-metadata.json.")],
    notes: Annotated[str, typer.Option("--message", "-m", help="Of the version.")] = "",
) -> None:
    """Make a folder a private dataset on Kaggle, or a new version of it, and wait until it is READY."""
    from kit.kaggle.commands import upload_dataset

    give(upload_dataset(folder, notes, say=say), lambda uploaded: None)  # it has said all


@kernel_app.command()
def image(
    published: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="pip freeze of the image, Kaggle's kaggle_requirements.txt."),
    ] = None,
    as_of: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="When they were published.")] = None,
    python: Annotated[
        str | None, typer.Option(metavar="3.12|3.13", help="The image's; left out: the first of the table.")
    ] = None,
) -> None:
    """Say what Kaggle's image lacks of requirements.txt; with FILEs, bring kernels/image.txt up to date."""
    from kit.kaggle.commands import kaggle_image

    def show(known: "KernelImageResult") -> None:
        if known.changes is not None:
            print("\n".join(known.changes) or "nothing has changed")
        lacking = len(known.lacking)
        print(f"Kaggle's image of {known.as_of}, Python {known.python}: {lacking} requirements are not met")
        for each in known.lacking:
            print(f"  {each.requirement}: {each.reason}")

    give(kaggle_image(published or [], as_of, python), show)


def _show_fetched(fetched: "KernelFetchResult") -> None:
    """Print the scores of the experiments whose runs were pooled."""
    from kit.cli.show import show_result

    for result in fetched.experiments.values():
        show_result(result)


def _show_ended(result: "KernelPushResult | KernelWaitResult") -> None:
    """Print how kernels ended, with the end of the log of each that failed."""
    for each in result.ended:
        if each.tail:
            print("\n".join(f"  | {line}" for line in each.tail))
        print(f"{each.kernel}: {each.outcome}" + (f": {each.failure}" if each.failure else ""))


def _exit_as_ended(ended: "Sequence[EndedSession]") -> None:
    """Raise the exit code that tells the worst end."""
    codes = [{"complete": 0, "failed": 3, "cancelled": 4}[each.outcome] for each in ended]
    if code := 3 if 3 in codes else max(codes, default=0):
        raise typer.Exit(code)


def _sources(texts: list[str]) -> dict[str, str]:
    if wrong := [text for text in texts if not re.fullmatch(r"[^=]+=.+", text)]:
        raise KitError(f"--source {wrong[0]}: expected OWNER/SLUG=DIR")
    return dict(text.split("=", 1) for text in texts)
