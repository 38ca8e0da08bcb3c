"""Results as tables and sketches on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # for annotations alone: they bring torch
    import pandas as pd

    from kit.comparison.features import FeaturesResult
    from kit.experiment.blend import BlendResult
    from kit.experiment.find_lr import FindLrResult
    from kit.experiment.init import InitResult
    from kit.experiment.policy_scores import PolicyScores
    from kit.experiment.preview import Preview, PreviewResult
    from kit.experiment.run import ExperimentResult
    from kit.experiment.soup.make import SoupResult
    from kit.lr import PolicyConfig

BARS = "▁▂▃▄▅▆▇█"
SHOWN_CLASSES = 50


def show_result(result: "ExperimentResult") -> None:
    """Print the scores of each policy, those of its classes, and where the files are."""
    if not (result.trained or result.left):
        print(f"Nothing to train: all {result.kept} runs of {result.folder} are finished.")
    for policy, outcome in result.policies.items():
        scores, metric = outcome.scores, outcome.scores.metric
        Console().print(_class_table(policy, outcome.per_class))
        folds = ", ".join(f"{run.fold}/{run.seed} {run.score:.4f}" for run in scores.runs)
        print(f"{policy}: {metric} by fold/seed: {folds}")
        part = "" if scores.oof_rows == scores.train_rows else f" of {scores.train_rows}"
        _show_decision(policy, scores)
        print(f"{policy}: pooled out-of-fold {metric} {scores.oof:.4f} ({scores.oof_rows}{part} rows)")
        if part:
            print(f"{policy}: only some folds were run, so this is no score of the whole train table")
        models = "1 model" if len(scores.runs) == 1 else f"{len(scores.runs)} models"
        print(f"{policy}: submission {outcome.submission}, the mean of {models}")
        if scores.submission == "probabilities":
            print(f"{policy}: it holds probabilities as they are; rule and score are of labels made of them")
    if result.given_up:
        print(f"Given up for want of time: {'; '.join(result.given_up)}")
    print(f"Everything else: {result.folder}")


def show_features(result: "FeaturesResult") -> None:
    """Print a row a head: its score out of fold with its interval, what was chosen, and how long it took."""
    table = Table(title=f"{result.metric}, out of fold, by cross-fitted rules", title_justify="left")
    table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    for title in ("head", "block", "score", "95 % interval", "by fold", "chosen", "fitting", "features"):
        table.add_column(title, overflow="fold", no_wrap=title not in ("head", "block", "by fold", "chosen"))
    for each in result.heads:
        table.add_row(
            each.head,
            each.block,
            f"{each.oof:.4f}",
            f"{each.low:.3f}…{each.high:.3f}",
            " ".join(f"{score:.3f}".removeprefix("0") for score in each.folds),
            " ".join(f"{strength:g}" for strength in each.strength),
            f"{each.seconds:.1f} s",
            f"{each.features:.1f} s",
        )
    Console().print(table)
    for each in result.heads if not result.picture else ():
        print(f"{each.head}: submission {each.submission}")
    if result.picture:
        print(f"By depth: {result.picture}")
    print(f"Everything else: {result.folder}")


def show_soup(made: "SoupResult") -> None:
    """Print a row a way to predict with its score, and whether the soup was kept."""
    for title, table in made.tables().items():
        rows = table.itertuples(index=False, name=None)
        shown = [(str(way), f"{score:.4f}", str(models)) for way, score, models in rows]
        _print_table(title, tuple(table.columns), shown)
    for line in made.remarks():
        print(line)


def show_first_config(made: "InitResult") -> None:
    """Print what was found, where the config is, and what to do with it."""
    print(*made.found, sep="\n")
    print(*(f"question: {question}" for question in made.questions), sep="\n")
    print(f"{made.config}: {len(made.guesses)} guesses and {len(made.questions)} questions, in its comments")
    if not made.fault:
        print(f"next: python -m kit audit {made.config}")
        print(f"then: python -m kit run {made.config}")


def _show_decision(policy: str, scores: "PolicyScores") -> None:
    """Print which decision rule was taken among which, each with its honest and its optimistic score."""
    if len(scores.rules) > 1:
        tried = ", ".join(f"{rule.name} {rule.cross_fitted:.4f} ({rule.optimistic:.4f})" for rule in scores.rules)
        print(f"{policy}: rules, cross-fitted (and on the rows they were fitted on): {tried}")
    if scores.rule["kind"] != "argmax":
        print(f"{policy}: decided by {scores.rule['said']}")


def _class_table(policy: str, frame: "pd.DataFrame") -> Table:
    """Return the scores of each class; of many those of the 50 with the lowest F."""
    f = frame.columns[3]
    title = f"{policy}, out of fold"
    if len(frame) > SHOWN_CLASSES:
        title += f": the {SHOWN_CLASSES} of {len(frame)} classes with the lowest {f.upper()}"
        frame = frame.sort_values(f, kind="stable").head(SHOWN_CLASSES)
    table = Table(title=escape(title))
    for column in frame.columns:
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else escape(str(value)) for value in row))
    return table


def show_previews(previewed: "PreviewResult") -> None:
    """Print the rates of each policy."""
    for each in previewed.policies:
        show_preview(each)


def show_preview(preview: "Preview") -> None:
    """Print a policy's rates: at some moments, and as a sketch of each depth group's rate over time."""
    lr, frozen, steps = preview.matrix.lr, preview.matrix.frozen, len(preview.matrix.lr)
    moments = [round(share * (steps - 1)) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    columns = [f"step {moment}" for moment in dict.fromkeys(moments)]
    title = f"{preview.policy}: {steps} updates, {preview.steps_per_epoch} an epoch"
    table = Table(title=escape(title), caption="log scale; · is a rate of 0, * frozen but for norms")
    for column in ("depth group", "parameters", *columns, "over time"):
        table.add_column(
            column, justify="left" if column in ("depth group", "over time") else "right", no_wrap=True
        )
    for group in reversed(preview.groups):
        rates = lr[:, group.index]
        cells = [
            f"{rates[moment]:.3g}" + ("*" if frozen[moment, group.index] and rates[moment] > 0 else "")
            for moment in dict.fromkeys(moments)
        ]
        table.add_row(escape(group.name), f"{group.n_params:,}", *cells, sketch(rates, lr, frozen[:, group.index]))
    Console(width=None if Console().is_terminal else 160).print(table)
    if preview.controller:
        print(f"{preview.policy}: these are the static rates; in training {preview.controller} multiplies them")


def sketch(rates: np.ndarray, scale: np.ndarray, frozen: np.ndarray | None = None, width: int = 24) -> str:
    """Return rates over time as bars: `·` for a rate of 0, `*` where the depth group is frozen but has a rate.

    Parameters
    ----------
    rates : ndarray
        float [steps].
    scale : ndarray
        All rates that share a log scale with these; it spans six decades at most.
    frozen : ndarray, optional
        bool [steps], whether the depth group is frozen.
    width : int
        The number of bars.
    """
    top = scale.max()
    if top <= 0:
        return "·" * width
    bottom = max(scale[scale > 0].min(), top * 1e-6)
    moments = np.linspace(0, len(rates) - 1, min(width, len(rates))).round().astype(int)
    span = max(np.log(top / bottom), 1e-9)
    bars = []
    for moment in moments:
        rate = rates[moment]
        if frozen is not None and frozen[moment] and rate > 0:
            bars.append("*")
            continue
        height = np.log(max(rate, bottom) / bottom) / span if top > bottom * (1 + 1e-9) else 1.0
        bars.append("·" if rate <= 0 else BARS[min(int(height * len(BARS)), len(BARS) - 1)])
    return "".join(bars)


def show_found(found: "FindLrResult", config: "PolicyConfig") -> None:
    """Print the suggestions of a range test, and what to write into the policy, which `config` states."""
    for name, test in found.tests.items():
        how = "stopped: the loss diverged" if test.diverged else "the loss did not diverge"
        chosen = ", ".join(f"{suggestion} {rate:.3g}" for suggestion, rate in test.suggestions().items())
        print(f"{found.policy}, {name}: {chosen} ({len(test.rates)} updates; {how})")
        if not test.fell:
            print(f"{found.policy}, {name}: the loss never fell, so none of these rates is of use")
    if "all" in found.tests:
        _show_rate(found, config)
    else:
        _show_profile(found, config)


def _show_rate(found: "FindLrResult", config: "PolicyConfig") -> None:
    """Print the peak rate that the curve of all depth groups together suggests."""
    test = found.tests["all"]
    factor = test.suggestions()["valley"] / found.peak
    if not test.fell:
        return
    if any(getattr(phase, "lr", None) is not None for phase in config.phases or ()):
        print(f"\nValley's: multiply every lr of the policy and its phases by {factor:.3g}")
        return
    print("\nValley's, ready to paste (rates by depth keep their ratios):\n")
    print(f"lr: {scaled(config.lr, factor)}")


def _show_profile(found: "FindLrResult", config: "PolicyConfig") -> None:
    """Print the profile that the curves of the single depth groups suggest."""
    top, multipliers = found.suggested_profile()
    print(
        "\nThe profile that these curves suggest (`minimum` of each), ready to paste in place of the policy's:\n"
    )
    print(f"lr: {top:.3g}\nprofile:\n  name: explicit\n  groups:")
    for name, multiplier in multipliers.items():
        print(f"    {name}: {multiplier:.3g}")
    print(f"groups: {config.groups}")
    if config.equalise:
        print("equalise: false")
    for name, test in found.tests.items():
        if not test.bounded:
            print(f"# No rate up to {test.rates[-1]:.3g} did harm to {name}: its curve says no more than that.")
    print("# The loss of each curve falls because the other groups learn, too: a group that hardly matters can be")
    print("# raised far without harm, and gets a high rate. Compare with a uniform policy before you trust it.")


def scaled(lr: float | str, factor: float) -> str:
    """Return a rate times a factor, as a config states it.

    `slice(1e-4, 1e-2)` times 2 is `slice(0.0002, 0.02)`.
    """
    from kit.lr.config import parse_lr

    rate = parse_lr(lr)
    numbers = [f"{each * factor:.3g}" for each in (rate.first, rate.last) if each is not None]
    return f"slice({', '.join(numbers)})" if rate.is_slice else numbers[0]


def show_policies(ready: Mapping[str, str], blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Print names with a sentence each: the ready policies, then what policies are made of."""
    sections = {"policies, ready to be named in a config or by --policy": ready}
    sections |= {f"{kind}, for a policy of your own": members for kind, members in blocks.items()}
    for title, members in sections.items():
        print(f"\n{title}")
        _print_two_columns(members)


def _print_two_columns(members: Mapping[str, str]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, sentence in members.items():
        table.add_row(escape(name), escape(sentence))
    Console(width=None if Console().is_terminal else 120).print(table)


def show_blend(blended: "BlendResult") -> None:
    """Print the weights of a blend's members, what each method was worth, the score and the files."""
    from kit.scoring.decide import TIE

    record = blended.record
    _print_table(
        "members",
        ("member", record["metric"], "weight"),
        [
            (each["member"], f"{each['oof']:.4f}", f"{each['weight']:.2f}" if each["weight"] else "·")
            for each in record["members"]
        ],
    )
    _print_table(
        "methods, weights and rule chosen on the other folds",
        ("method", "rule", record["metric"], "on the rows themselves", "weights"),
        [
            (
                each["method"] + (" ←" if each["chosen"] else ""),
                each["rule"],
                f"{each['cross_fitted']:.4f}",
                f"{each['optimistic']:.4f}",
                " ".join(f"{weight:.2f}" for weight in each["weights"]),
            )
            for each in record["candidates"]
        ],
    )
    rows, of = record["oof_rows"], record["train_rows"]
    part = "" if rows == of else f" of {of}"
    best = max(record["candidates"], key=lambda each: each["cross_fitted"])
    if best["cross_fitted"] > record["oof"] + TIE:
        print(f"{best['method']} has a better score than {record['method']}, which was asked for.")
    elif record["method"] == "single":
        (taken,) = [each["member"] for each in record["members"] if each["weight"]]
        print(f"No blend is better than the best member, so this is {taken}.")
    if record["rule"]["kind"] != "argmax":
        print(f"Decided by {record['rule']['said']}")
    print(f"Out-of-fold {record['metric']} {record['oof']:.4f} ({rows}{part} rows)")
    print(f"Submission: {blended.submission}; everything else: {blended.folder}")


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=escape(title))
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 or column == "rule" else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if Console().is_terminal else 120).print(table)
