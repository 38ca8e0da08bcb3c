"""The command line of `python -m kit kernel …`: parse, call, print."""

import contextlib
import gc
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kit.cli.options import Config, Overrides, Policies, chosen_folds, say

if TYPE_CHECKING:
    from pathlib import Path

    from kit.kaggle.client import Kaggle
    from kit.kaggle.kernel.sessions import EndedSession

kernel_app = typer.Typer(
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
    from kit.core.errors import KitError
    from kit.experiment.config import load_experiment
    from kit.kaggle.kernel.build import build_kernels, shareable_command

    experiment = load_experiment(config, [*(overrides or []), *chosen_folds(fold)], policy or [])
    if (fold_each or fold) and kind == "infer":
        raise KitError("--fold, --fold-each: an infer kernel predicts with all folds that are attached")
    command = shareable_command(sys.argv[1:])
    kernels = build_kernels(
        experiment, kind, fold_each=fold_each, command=command, name=name, notebook=notebook, output=output
    )
    for number, made in enumerate(kernels):
        if number == 0:
            for path, size in made.files.items():
                print(f"{size:9,}  {path}")
        print(f"{made.folder.path}: {len(made.files)} files in {made.code_bytes / 1000:.0f} kB of code")
        for note in made.notes:
            print(f"  {note}")


@kernel_app.command()
def rehearse(
    folder: Dir,
    test_rows: Annotated[
        str | None, typer.Option(metavar="0|1|3|x5", help="Another test set, as in Kaggle's rerun.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds; left out: the config's kernel.hours.")
    ] = None,
    mounts: Annotated[
        Literal["nested", "flat"],
        typer.Option(help="/kaggle/input/competitions/SLUG, or /kaggle/input/SLUG."),
    ] = "nested",
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
    verdict = rehearse(folder, options, say)
    print(f"\nverdict ({verdict.isolation}; outputs in {verdict.working})")
    for check in verdict.checks:
        print(check)
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
    from pathlib import Path

    from kit.kaggle.client import Kaggle
    from kit.kaggle.kernel.push import push, push_all, select_kernels

    kernels = select_kernels(folders or [], everything, Path(output))
    kaggle = Kaggle(say)
    try:
        if everything or len(kernels) > 1:
            _show_ended(push_all(kernels, kaggle, sessions=sessions, unrehearsed=unrehearsed, say=say))
            return
        push(kernels[0].path, kaggle, unrehearsed=unrehearsed, say=say)
        if wait:
            _wait(kernels[0].path, kaggle)
    except KeyboardInterrupt:
        print("interrupted; kernels that were pushed run on: push --all or wait goes on", file=sys.stderr)
        raise typer.Exit(130) from None


@kernel_app.command()
def wait(folder: Dir) -> None:
    """Wait until the pushed version has ended; exit code 0: complete, 3: failed, 4: cancelled."""
    from kit.kaggle.client import Kaggle

    _wait(folder, Kaggle(say))


@kernel_app.command()
def status(folders: Dirs = None, everything: All = False, output: Output = ".") -> None:
    """Tell how far the pushed versions are."""
    from pathlib import Path

    from kit.kaggle.client import Kaggle
    from kit.kaggle.kernel.push import pushed_kernel, select_kernels

    kaggle = Kaggle(say)
    for kernel in select_kernels(folders or [], everything, Path(output)):
        if everything and not kernel.push:
            print(f"{kernel.path}: not pushed yet")
            continue
        pushed = pushed_kernel(kernel.path)
        session = kaggle.session(pushed)
        print(f"{pushed}: {session.status}" + (f" ({session.failure})" if session.failure else ""))


@kernel_app.command()
def logs(
    folder: Dir, follow: Annotated[bool, typer.Option("--follow", "-f", help="As they come.")] = False
) -> None:
    """Print the log of the pushed version."""
    from kit.kaggle.client import Kaggle
    from kit.kaggle.kernel.push import pushed_kernel
    from kit.kaggle.kernel.sessions import follow_log

    kaggle, kernel = Kaggle(), pushed_kernel(folder)
    for line in follow_log(kernel, kaggle) if follow else kaggle.outputs(kernel).log:
        say(line)


@kernel_app.command()
def fetch(folders: Dirs = None, everything: All = False, output: Output = ".") -> None:
    """Bring the outputs home: into kernels/build/NAME/output, and the runs into runs/, where they pool."""
    from pathlib import Path

    from kit.cli.show import show_result
    from kit.core.errors import KitError
    from kit.kaggle.client import Kaggle
    from kit.kaggle.kernel.fetch import fetch_kernels, pool_fetched
    from kit.kaggle.kernel.push import select_kernels

    kernels = select_kernels(folders or [], everything, Path(output))
    fetched = fetch_kernels(kernels, Kaggle(say), output, skip_unpushed=everything, say=say)
    for experiment, result in pool_fetched(fetched, output, say):
        show_result(result, experiment.scoring.title)
    if fetched.troubles:
        raise KitError("\n".join(fetched.troubles))


@kernel_app.command()
def wheels(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Becomes a dataset: kernels/datasets/NAME.")],
    dataset: Annotated[str, typer.Option(metavar="OWNER/SLUG", help="The dataset's name on Kaggle.")],
    requirements: Annotated[str, typer.Option(metavar="FILE", help="What the kernels need.")] = "requirements.txt",
) -> None:
    """Collect the wheels of what Kaggle's image lacks into a dataset's folder."""
    from pathlib import Path

    from kit.kaggle.image import missing, read_image
    from kit.kaggle.kernel.build import TEMPLATES
    from kit.kaggle.wheels import wheels_folder

    image = read_image(TEMPLATES / "image.txt")
    lacking = missing(Path(requirements), image)
    for each in lacking:
        print(f"{each.requirement}: {each.reason}")
    if not lacking:
        print(f"Kaggle's image has all that {requirements} names; no wheels are needed")
        return
    title = dataset.rpartition("/")[2].replace("-", " ")
    files = wheels_folder(lacking, image, Path(folder), dataset, title, say)
    print(f"{folder}: {len(files)} wheels")
    print(f"next: python -m kit kernel upload {folder}; then name {dataset} in kernel.datasets")


@kernel_app.command()
def weights(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .safetensors, .pth, .pt or .bin file.")],
    to: Annotated[
        str, typer.Option(metavar="REF", help="OWNER/SLUG of a dataset, or OWNER/MODEL/FRAMEWORK/VARIATION.")
    ],
    folder: Annotated[str | None, typer.Option(metavar="DIR", help="Left out: kernels/datasets/SLUG.")] = None,
) -> None:
    """Put a weight file into a dataset's or a model's folder, with its metadata."""
    from pathlib import Path

    from kit.kaggle.datasets import weights_folder

    name = to.split("/")[1] if "/" in to else to
    target = Path(folder) if folder else Path("kernels/datasets") / name
    placed = weights_folder(Path(file), target, to, name.replace("-", " "))
    if to.count("/") == 1:
        print(f"{placed}\nnext: python -m kit kernel upload {target}; then name {to} in kernel.datasets")
    else:
        print(f"{placed}\nnext: kaggle models create -p {target} && kaggle models variations create -p {target}")
        print(f"then name {to}/1 in kernel.models")


@kernel_app.command()
def upload(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder with dataset-metadata.json.")],
    notes: Annotated[str, typer.Option("--message", "-m", help="Of the version.")] = "",
) -> None:
    """Make a folder a private dataset on Kaggle, or a new version of it, and wait until it is READY."""
    from kit.kaggle.client import Kaggle
    from kit.kaggle.datasets import upload

    upload(folder, Kaggle(say), notes, say)


@kernel_app.command()
def image(
    published: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="pip freeze of the image, Kaggle's kaggle_requirements.txt."),
    ] = None,
    as_of: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="When they were published.")] = None,
) -> None:
    """Say what Kaggle's image lacks of requirements.txt; with FILEs, bring kernels/image.txt up to date."""
    from pathlib import Path

    from kit.core.errors import KitError
    from kit.kaggle.image import missing, read_image, refresh
    from kit.kaggle.kernel.build import TEMPLATES

    table, requirements = TEMPLATES / "image.txt", TEMPLATES.parent / "requirements.txt"
    if published:
        if as_of is None:
            raise KitError("--as-of YYYY-MM: say when the lists were published")
        changes = refresh(table, [Path(file) for file in published], requirements, as_of)
        print("\n".join(changes) or "nothing has changed")
    image = read_image(table)
    lacking = missing(requirements, image)
    print(f"Kaggle's image of {image.as_of}, Python {image.python}: {len(lacking)} requirements are not met")
    for each in lacking:
        print(f"  {each.requirement}: {each.reason}")


def _wait(folder: "str | Path", kaggle: "Kaggle") -> None:
    from kit.kaggle.kernel.folder import KernelFolder
    from kit.kaggle.kernel.push import pushed_kernel
    from kit.kaggle.kernel.sessions import required_output, wait

    needs = required_output(KernelFolder.at(folder))
    _show_ended([wait(pushed_kernel(folder), kaggle, say, needs=needs)])


def _show_ended(ended: "list[EndedSession]") -> None:
    """Print how kernels ended, with the end of the log of each that failed; the exit code tells the worst."""
    for each in ended:
        if each.tail:
            print("\n".join(f"  | {line}" for line in each.tail))
        print(f"{each.kernel}: {each.outcome}" + (f": {each.failure}" if each.failure else ""))
    codes = [{"complete": 0, "failed": 3, "cancelled": 4}[each.outcome] for each in ended]
    if code := 3 if 3 in codes else max(codes, default=0):
        raise typer.Exit(code)


def _sources(texts: list[str]) -> dict[str, str]:
    from kit.core.errors import KitError

    if wrong := [text for text in texts if not re.fullmatch(r"[^=]+=.+", text)]:
        raise KitError(f"--source {wrong[0]}: expected OWNER/SLUG=DIR")
    return dict(text.split("=", 1) for text in texts)
