"""The report of an experiment: what is gathered from its folder, whole, unfinished or without its data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.colours import experiment_content, write_competition
from support.made_up_runs import POLICIES, write_experiment
from support.refusals import refusal_of

from kit.core.files import write_json, write_text
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.config import validate
from kit.report.gather import find_experiment, gather, report
from kit.scoring.f1 import per_class


@pytest.fixture(scope="module")
def whole(tmp_path_factory, competition):
    """An experiment of which everything is there."""
    root = tmp_path_factory.mktemp("whole")
    return root, write_experiment(root, competition, samples=12)


@pytest.fixture(scope="module")
def gathered(whole):
    return gather(whole[1], OutputDirs(whole[0]))


def test_everything_that_is_there_is_gathered(gathered):
    assert [policy.name for policy in gathered.policies] == list(POLICIES)
    assert (gathered.baseline, gathered.metric, gathered.fold_plan) == ("uniform", "macro F1", "f01d")
    assert all(len(policy.finished) == len(policy.histories) == 6 for policy in gathered.policies)
    assert {policy.shown_run for policy in gathered.policies} == {"Seed 0, fold 0"}
    assert all(policy.activations and policy.learning and policy.rates for policy in gathered.policies)
    assert gathered.unavailable == ""


def test_decided_rows_give_the_stored_scores(gathered):
    for policy in gathered.policies:
        table = per_class(policy.outcome.truth, policy.outcome.predicted, gathered.classes)
        assert table["f1"].mean() == pytest.approx(policy.scores.oof, abs=1e-12)


def test_rates_are_compared_with_those_the_policy_intends(whole, gathered, tmp_path):
    assert [policy.rates.largest_difference for policy in gathered.policies] == [0, 0, 0]
    run = whole[1].run(RunKey("uniform", 0, 1))
    with np.load(run.rates) as saved:
        arrays = dict(saved)
    try:
        np.savez(run.rates, **arrays | {"lr": arrays["lr"] * np.where(np.arange(60) == 7, 1.25, 1.0)[:, None]})
        run.write(run.record)
        from kit.report.gather import read_rates

        changed = read_rates(
            run, validate(experiment_content(tmp_path, policies=POLICIES), "t").policies["uniform"]
        )
        assert changed.largest_difference == pytest.approx(0.25)
    finally:
        np.savez(run.rates, **arrays)


def test_the_images_that_most_policies_got_wrong_come_first(gathered):
    shown = gathered.thumbnails
    assert 0 < len(shown) <= 24
    counts = [each.wrong for each in shown]
    assert counts == sorted(counts, reverse=True)
    outcomes = [policy.outcome for policy in gathered.policies]
    for each in shown:
        wrong = [o for o in outcomes if o.wrong[o.ids.get_loc(each.id)]]
        assert (each.wrong, each.of) == (len(wrong), 3)
        assert each.image.startswith("data:image/")
    assert all(each.truth in gathered.names for each in shown)


def test_the_same_runs_give_the_same_bytes(whole, tmp_path):
    root, folder = whole
    first = report(folder.path, OutputDirs(root))
    assert first == folder.report
    again = report(folder.path, OutputDirs(tmp_path), to=tmp_path / "again.html")
    assert first.read_bytes() == again.read_bytes()


def test_without_the_competition_the_rest_is_there(tmp_path):
    competition = write_competition(tmp_path / "colours")
    folder = write_experiment(tmp_path, competition, seeds=1)
    competition.rename(tmp_path / "elsewhere")
    said = []
    page = report(folder.path, OutputDirs(tmp_path), say=said.append).read_text(encoding="utf-8")
    assert "is no folder" in said[0]
    assert "The images cannot be shown:" in page
    assert "What was mistaken for what cannot be shown:" in page
    assert 'id="plot-forest"' in page
    assert 'id="table-per-class"' in page
    assert 'id="plot-confusion-0"' not in page


def test_an_image_that_is_broken_is_said_to_be(tmp_path):
    competition = write_competition(tmp_path / "colours")
    folder = write_experiment(tmp_path, competition, policies={"uniform": {"lr": 1e-2}}, seeds=1, skill=0.5)
    for file in (competition / "train").iterdir():
        file.write_bytes(b"no image")
    made = gather(folder, OutputDirs(tmp_path))
    assert made.thumbnails
    assert all(each.image is None for each in made.thumbnails)
    assert "cannot be read" in report(folder.path, OutputDirs(tmp_path)).read_text(encoding="utf-8")


def test_of_unfinished_runs_what_is_finished_is_shown(tmp_path, competition):
    folder = write_experiment(tmp_path, competition, seeds=1, compared=False)
    for run in folder.runs("uniform"):
        if run.record.fold == 0:
            run.write(run.record.with_fields(status="running"))
    for run in folder.runs("discriminative"):
        run.write(run.record.with_fields(status="failed", error="out of <memory>"))
    (folder.policy("discriminative") / "scores.json").unlink()
    made = gather(folder, OutputDirs(tmp_path))
    assert [len(policy.finished) for policy in made.policies] == [2, 0, 3]
    assert {policy.shown_run for policy in made.policies if policy.finished} == {"Seed 0, fold 1"}
    page = report(folder.path, OutputDirs(tmp_path)).read_text(encoding="utf-8")
    assert "5 runs finished, 3 failed, 1 running" in page
    assert "out of &lt;memory&gt;" in page
    assert "Nothing is compared yet" in page


def test_a_folder_with_nothing_but_a_config_has_a_report(tmp_path, competition):
    folder = ExperimentDir(tmp_path / "runs/tiny")
    write_text(folder.config, validate(experiment_content(competition), "test").to_yaml())
    page = report(folder.path, OutputDirs(tmp_path)).read_text(encoding="utf-8")
    assert "No run is finished yet" in page


def test_an_experiment_is_found_by_its_name_or_its_folder(whole, tmp_path, monkeypatch):
    root, folder = whole
    assert find_experiment("tiny", root) == folder.path
    assert find_experiment(str(folder.path), tmp_path) == folder.path
    monkeypatch.chdir(root)
    assert find_experiment("tiny") == Path("runs/tiny")
    assert refusal_of(find_experiment, "tinny", "output") == (
        "tinny: there is no such experiment in output/runs, and no folder of one"
    )


def test_what_is_no_experiment_or_damaged_is_refused(tmp_path, whole):
    assert "holds no experiment.yaml" in refusal_of(report, tmp_path, OutputDirs(tmp_path))
    folder = ExperimentDir(tmp_path / "runs/tiny")
    write_text(folder.config, whole[1].config.read_text())
    write_text(folder.comparison, "{")
    assert "is damaged" in refusal_of(report, folder.path, OutputDirs(tmp_path))


def test_variants_are_not_policies_of_the_report(tmp_path, competition):
    variants = {"uniform-lr0.003": {"lr": 3e-3}}
    folder = write_experiment(tmp_path, competition, policies=POLICIES | variants, seeds=1)
    content = json.loads(folder.comparison.read_text())
    for view in content["views"]:
        view["policies"] = [each for each in view["policies"] if each["policy"] not in variants]
        view["comparisons"] = [each for each in view["comparisons"] if each["policy"] not in variants]
    write_json(folder.comparison, content)
    assert [policy.name for policy in gather(folder, OutputDirs(tmp_path)).policies] == list(POLICIES)


def test_torch_is_not_needed(whole):
    code = (
        "import sys; from pathlib import Path; from kit.report.gather import report; "
        "from kit.core.paths import OutputDirs; "
        f"report(Path({str(whole[1].path)!r}), OutputDirs(Path({str(whole[0])!r}))); "
        "assert 'torch' not in sys.modules and 'plotly.graph_objects' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_several_labels_a_row(tmp_path):
    folder = several_labels(tmp_path)
    made = gather(folder, OutputDirs(tmp_path))
    assert made.multilabel
    assert all(each.image for each in made.thumbnails)
    page = report(folder.path, OutputDirs(tmp_path)).read_text(encoding="utf-8")
    assert 'id="plot-lowest-classes"' in page
    assert 'id="table-confused"' in page
    assert 'id="plot-confusion-0"' not in page


def several_labels(root: Path, names=("day", "rain", "snow")) -> ExperimentDir:
    competition = write_competition(root / "tags", rows=60)
    truth = np.random.default_rng(0).random((60, 3)) < 0.5
    truth[~truth.any(axis=1), 0] = True
    cells = [" ".join(tag for tag, has in zip(names, row, strict=True) if has) for row in truth]
    pd.read_csv(competition / "train.csv").assign(label=cells).to_csv(competition / "train.csv", index=False)
    return write_experiment(
        root, competition, competition={"separator": " "}, scoring={"rule": "auto"}, seeds=1, skill=0.4
    )
