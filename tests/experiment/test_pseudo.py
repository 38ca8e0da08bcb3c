"""kit pseudo: labels of fold f are those of its models alone, and the next round trains on them as they are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.colours import experiment_content, write_competition
from support.commands import config_file, kit_here
from support.made_up_runs import write_experiment

from kit import PseudoOptions, load_experiment, pseudo, run
from kit.cli.doctor import doctor
from kit.competition.load import load_competition
from kit.core.errors import Damaged, KitError
from kit.core.files import write_text
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, average, predictions, read_predictions, write_predictions
from kit.experiment import fingerprint
from kit.experiment.config import validate
from kit.experiment.fingerprint import policy_digest, shared_digests, stored_experiment
from kit.experiment.fold_plan import read_plan
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pseudo_rounds import next_config
from kit.experiment.soup.config import SoupConfig

SMALL = {"folds": {"k": 2}, "training": {"epochs": 1, "loss": "mine.py:loss"}, "seeds": [3]}
LOSS = """
import torch


def loss(logits, targets):
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
"""


def made_up(data: Path, unread: tuple[str, ...] = (), **sections) -> ExperimentDir:
    """An experiment `tiny` in this folder as `run` leaves it: three folds, two seeds; test rows drawn."""
    policies = {"uniform": {"lr": 1e-2}, "other": {"lr": 1e-3}}
    folder = write_experiment(Path(), data, policies, steps=20, compared=False, **sections)
    config = stored_experiment(folder)
    tables = load_competition(config.competition)
    shared = shared_digests(config, tables) | {"folds": read_plan(config, folder, tables).digest}
    for number, each in enumerate(folder.runs()):
        shape = (len(tables.test_ids), len(tables.classes))
        values = np.random.default_rng(number).dirichlet([0.2] * shape[1], shape[0])
        write_predictions(predictions(tables.test_ids, values, tables.classes), each.test)
        policy = {"policy": policy_digest(config, config.policies[each.record.policy])}
        facts = {"test": fingerprint.test_digest(tables), "unread": list(unread), "files": each.digests()}
        each.write(each.record.with_fields(depends_on=shared | policy, **facts))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `made_up` runs of a competition in data/colours."""
    root = tmp_path_factory.mktemp("made")
    write_competition(root / "data/colours", rows=18, test_rows=40, side=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        made_up(Path("data/colours"), unread=("test003",))
    return root


@pytest.fixture
def tiny(made, tmp_path, monkeypatch) -> ExperimentDir:
    """The same, to be changed: the folder in which the test runs."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return ExperimentDir(Path("runs/tiny"))


def labels_in(table: Path) -> pd.DataFrame:
    return pd.read_csv(table, dtype={"id": str})


def of_fold(folder: ExperimentDir, fold: int, policy: str = "uniform") -> pd.DataFrame:
    """The mean over seeds, slowly."""
    each = [read_predictions(folder.path / policy / f"seed{seed}/fold{fold}/test.parquet") for seed in (0, 1)]
    return sum(frame.astype(float) for frame in each) / 2


def refusal(call, *arguments, **keywords) -> str:
    with pytest.raises(KitError) as caught:
        call(*arguments, **keywords)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_folds_labels_are_those_of_its_own_models(tiny):
    made = pseudo("tiny", PseudoOptions(at_least=0.7, weight=0.5))
    assert made.table == Path("runs/tiny/pseudo/uniform-test/tiny-pseudo.csv")
    table = labels_in(made.table)
    assert list(table.columns) == ["id", "fold", "blue", "green", "red", "weight", "fold_plan"]
    for fold in range(3):
        sure = [(name, row) for name, row in of_fold(tiny, fold).iterrows() if row.max() >= 0.7]
        expected = {name: row.idxmax() for name, row in sure if name != "test003"}
        mine = table[table["fold"] == fold].set_index("id")
        assert mine[["blue", "green", "red"]].idxmax(axis=1).to_dict() == expected
        assert made.folds[fold].labelled == len(expected) > 5
        assert (made.folds[fold].rows, made.folds[fold].models) == (39, 2)
        chosen = [row.max() for name, row in sure if name in expected]
        assert made.folds[fold].confidence == pytest.approx(np.mean(chosen))
    assert np.unique(table[["blue", "green", "red"]]).tolist() == [0, 1]
    assert set(table["weight"]) == {0.5}
    assert set(table["fold_plan"]) == {tiny.runs()[0].record.depends_on["folds"]}
    record = json.loads(made.table.with_suffix(".json").read_text())
    assert record["runs"]["uniform/seed1/fold2"]["sha256"] == tiny.runs()[-1].record.files["test.parquet"]
    assert (record["policy"], record["at_least"], record["rounds"]) == ("uniform", 0.7, ["tiny"])


def test_what_other_folds_models_say_changes_nothing(tiny):
    before = labels_in(pseudo("tiny", PseudoOptions(soft=True)).table)
    other = tiny.path / "uniform/seed0/fold1"
    changed = next(run for run in tiny.runs("uniform") if run.path == other)
    write_predictions(
        changed.read_test()[["red", "blue", "green"]].set_axis(["blue", "green", "red"], axis=1), changed.test
    )
    changed.write(changed.record.with_fields(files=changed.digests()))
    after = labels_in(pseudo("tiny", PseudoOptions(soft=True, replace=True)).table)
    same = (before == after).all(axis=1)
    assert same[before["fold"] != 1].all()
    assert not same[before["fold"] == 1].any()


def test_soft_labels_of_another_policy(tiny):
    made = pseudo("tiny", PseudoOptions(policy="other", soft=True))
    assert made.table.parent.name == "other-test"
    table = labels_in(made.table)
    for fold in range(3):
        mine = table[table["fold"] == fold].set_index("id")[["blue", "green", "red"]]
        expected = of_fold(tiny, fold, "other").drop("test003")  # which could not be read
        pd.testing.assert_frame_equal(mine, expected, atol=1e-6, check_names=False)


def test_rows_with_several_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_competition(tmp_path / "data", rows=18, test_rows=40, side=4)
    for name in ("train", "sample_submission"):
        table = pd.read_csv(data / f"{name}.csv")
        both = (table["label"] + " red").replace("red red", "red")
        table.assign(label=both).to_csv(data / f"{name}.csv", index=False)
    made_up(data, competition={"separator": " "}, scoring={"rule": "half"})
    made = pseudo("tiny", PseudoOptions(share=0.25))
    table = labels_in(made.table)
    assert table.groupby("fold").size().tolist() == [10, 10, 10]
    extra = load_competition(load_experiment(made.config).competition).extra
    assert extra.targets(3).shape == (30, 3)
    assert extra.has_shares


def test_labels_are_of_rows_where_observations_are_predicted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_competition(tmp_path / "data", rows=18, test_rows=8, side=4)
    train, test = pd.read_csv(data / "train.csv"), pd.read_csv(data / "test.csv")
    train.assign(patient=train["id"]).to_csv(data / "train.csv", index=False)
    patients = [f"p{row // 2}" for row in range(8)]
    test.assign(patient=patients).to_csv(data / "test.csv", index=False)
    sample = pd.DataFrame({"patient": patients[::2], "label": "red"})
    sample.to_csv(data / "sample_submission.csv", index=False)
    made_up(data, competition={"predict_by": "patient"})
    table = labels_in(pseudo("tiny", PseudoOptions(soft=True)).table)
    assert table["id"].tolist() == 3 * test["id"].tolist()


def test_an_output_folder_elsewhere(made, tmp_path, monkeypatch):
    shutil.copytree(made / "runs", tmp_path / "out/runs")
    (tmp_path / "data").symlink_to(made / "data")
    monkeypatch.chdir(tmp_path)
    there = pseudo("tiny", PseudoOptions(soft=True), "out")
    (extra,) = load_experiment(there.config).competition.extra
    assert (extra.path, extra.table) == ("out/runs/tiny/pseudo/uniform-test", "tiny-pseudo.csv")
    assert [command.endswith(" --output out") for command in there.next] == [True, True]


def test_the_next_config_is_the_old_one_with_the_labels(tiny):
    made = pseudo("tiny", PseudoOptions(share=1.0))
    old, new = stored_experiment(ExperimentDir(Path("runs/tiny"))), load_experiment(made.config)
    assert (made.config, new.name) == (Path("tiny-pseudo.yaml"), "tiny-pseudo")
    changed = {name for name, value in new if value != getattr(old, name)}
    assert changed == {"name", "competition"}
    (extra,) = new.competition.extra
    assert (extra.path, extra.table) == ("runs/tiny/pseudo/uniform-test", "tiny-pseudo.csv")
    assert (extra.images, extra.fold, extra.source) == ("test", "fold", "tiny")
    assert new.competition.model_copy(update={"extra": None}) == old.competition
    # The made-up runs follow a plan of their own, which has to be named.
    assert made.next == [
        "python -m kit run tiny-pseudo.yaml --folds runs/tiny/folds.csv",
        "python -m kit pseudo tiny --after tiny-pseudo",
    ]


def test_the_next_config_keeps_what_is_chosen_by_name(tiny):
    """Its name is a member's default, and yet says which one it is; a soup's next round trains its seeds."""
    stored = stored_experiment(tiny)
    named = {
        "training": {"loss": {"name": "focal"}},
        "policies": {"uniform": {"lr": 1e-2, "schedule": {"name": "cosine"}, "profile": {"name": "layer_decay"}}},
        "seeds": [0],
    }
    config = validate(experiment_content(Path(stored.competition.path), **named), "test")
    soup = config.model_copy(update={"soup": SoupConfig(of="tiny", seeds=(0, 1))})
    entry = {"table": "x.csv", "path": "runs", "images": "test", "shares": True, "fold": "fold", "source": "tiny"}
    for each, seeds in ((config, (0,)), (soup, (0, 1))):
        loaded = LoadedExperiment(each, tiny, load_competition(each.competition), None, {})
        made = validate(next_config(loaded, "later", entry), "later")
        known = config.model_copy(update={"name": "later", "seeds": seeds, "competition": made.competition})
        assert made == known


def test_heads_over_features_have_no_next_round(tiny):
    content = experiment_content(Path("data/colours"), features={"heads": {"near": {"name": "knn"}}})
    content.pop("policies")
    file = Path("runs/heads/experiment.yaml")
    write_text(file, validate(content | {"name": "heads"}, "test").to_yaml())
    assert "heads over features, which train on no extra rows" in refusal(pseudo, "heads")


def test_another_fold_plan_is_refused_where_the_labels_are_used(tiny):
    config = load_experiment(pseudo("tiny").config)
    message = refusal(LoadedExperiment.open, config, ExperimentDir(Path("runs/tiny-pseudo")), OutputDirs.at("."))
    assert "names folds of another plan" in message
    folds = Path("runs/tiny/folds.csv")
    loaded = LoadedExperiment.open(
        config, ExperimentDir(Path("runs/tiny-pseudo")), OutputDirs.at("."), folds=folds
    )
    table = labels_in(Path("runs/tiny/pseudo/uniform-test/tiny-pseudo.csv"))
    for fold in range(3):  # no more than its own
        assert len(loaded.training_rows(fold)) == 12 + (table["fold"] == fold).sum()


def test_a_fold_without_labels_is_told(tiny):
    made = pseudo("tiny", PseudoOptions(soft=True))
    table = labels_in(made.table)
    table[table["fold"] != 1].to_csv(made.table, index=False)
    said: list[str] = []
    folder, folds = ExperimentDir(Path("runs/tiny-pseudo")), Path("runs/tiny/folds.csv")
    LoadedExperiment.open(load_experiment(made.config), folder, OutputDirs.at("."), folds=folds, say=said.append)
    assert any(
        line.endswith("of tiny-pseudo.csv (weight 1, labels from tiny); none is there for fold 1") for line in said
    )


def test_nothing_is_written_over(tiny):
    made = pseudo("tiny")
    before = made.table.read_bytes(), made.config.read_bytes()
    assert "tiny-pseudo.csv, tiny-pseudo.yaml are there already; --replace" in refusal(pseudo, "tiny")
    other = pseudo("tiny", PseudoOptions(name="second", soft=True))
    assert (other.config, other.table) == (Path("second.yaml"), made.table.with_name("second.csv"))
    assert (made.table.read_bytes(), made.config.read_bytes()) == before
    pseudo("tiny", PseudoOptions(soft=True, replace=True))
    assert made.table.read_bytes() != before[0]


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        ("mine", {}, "EXPERIMENT mine: runs holds no such experiment; it holds tiny"),
        ("../runs/tiny", {}, "EXPERIMENT ../runs/tiny: runs holds no such experiment"),
        ("tiny", {"policy": "uni"}, "--policy uni: tiny has no such policy; it has uniform, other"),
        ("tiny", {"after": ["mine"]}, "--after mine: runs holds no such experiment"),
        ("tiny", {"name": "tiny"}, "--name tiny: is a round that labelled"),
        ("tiny", {"name": "a/b"}, "--name a/b: letters, digits"),
        ("tiny", {"folder": "nowhere"}, "--folder nowhere: is no folder"),
        ("tiny", {"folder": "empty"}, "--folder empty: holds no images"),
        ("tiny", {"at_least": 1}, "--at-least 1: no row of any fold is that sure"),
    ],
)
def test_what_cannot_be_labelled(tiny, experiment, options, message):
    Path("empty").mkdir()
    assert refusal(pseudo, experiment, PseudoOptions(**options)).startswith(message)
    assert not Path("runs/tiny/pseudo").exists()
    assert not list(Path().glob("*.yaml"))


def test_runs_that_do_not_fit(tiny):
    shutil.move("runs/tiny/uniform/seed0/fold1", "away0")
    said: list[str] = []
    made = pseudo("tiny", PseudoOptions(soft=True), say=said.append)
    assert [each.models for each in made.folds] == [2, 1, 2]
    assert said[0] == "tiny: not all of 2 seeds are finished; labels are the mean: fold 1 of 1"
    shutil.move("runs/tiny/uniform/seed1/fold1", "away1")
    again = PseudoOptions(replace=True)
    assert "no run of uniform in fold 1 is finished" in refusal(pseudo, "tiny", again)
    shutil.move("away1", "runs/tiny/uniform/seed1/fold1")
    first = tiny.runs("uniform")[0]
    content = first.test.read_bytes()
    first.test.write_bytes(content[:-1])
    with pytest.raises(Damaged, match=r"test\.parquet is damaged"):
        pseudo("tiny", again)
    first.test.write_bytes(content)
    first.write(first.record.with_fields(test="another"))
    assert "predicted another test set than the one in" in refusal(pseudo, "tiny", again)


def test_labels_that_are_damaged_are_found(tiny):
    made = pseudo("tiny")
    made.table.write_text(made.table.read_text().replace("test001", "test002", 1))
    (state,) = doctor(runs=["runs"]).folders
    (fault,) = state.faults
    assert (fault.file, fault.about) == ("pseudo/uniform-test/tiny-pseudo.csv", "is not what was written")
    assert fault.advice == "python -m kit pseudo with --replace writes it anew"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which `tiny` was trained: two folds; a test image is that of a training row."""
    root = tmp_path_factory.mktemp("trained")
    folder = write_competition(root / "data/colours", rows=18, test_rows=9, side=8)
    shutil.copy(folder / "train/train004.png", folder / "test/test000.png")
    (root / "mine.py").write_text(LOSS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run(load_experiment(config_file(Path("data/colours"), root / "tiny.yaml", **SMALL)))
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch) -> Path:
    shutil.copytree(trained, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


def held_out_in(name: str) -> int:
    folds = pd.read_csv("runs/tiny/folds.csv")
    return int(folds.set_index("id")["fold"][name])


def test_rounds(root, monkeypatch, capsys):
    code, out, _ = kit_here(monkeypatch, capsys, "pseudo", "tiny", "--soft")
    assert code == 0
    assert "next: python -m kit run tiny-pseudo.yaml\n" in out
    table = labels_in(root / "runs/tiny/pseudo/uniform-test/tiny-pseudo.csv")
    assert len(table) == 18
    copies = table[table["id"] == "test000"]
    each = [read_predictions(path) for path in sorted(root.glob("runs/tiny/uniform/seed*/fold0/test.parquet"))]
    said = copies[copies["fold"] == 0][["blue", "green", "red"]].to_numpy()[0]
    assert said == pytest.approx(average(each).loc["test000"].to_numpy(), abs=1e-6)  # and not the train table's
    # Trained on as it is, but for the image of a row that the fold holds out.
    code, out, _ = kit_here(monkeypatch, capsys, "run", "tiny-pseudo.yaml")
    fold = held_out_in("train004")
    assert code == 0
    assert "18 extra rows of 9 images of tiny-pseudo.csv (weight 1, labels from tiny)" in out
    assert f"1 left out in some folds (1 in fold {fold})" in out
    code, out, _ = kit_here(monkeypatch, capsys, "pseudo", "tiny", "--after", "tiny-pseudo", "--share", "0.5")
    assert code == 0
    assert "rounds: tiny → tiny-pseudo\n" in out
    second = load_experiment("tiny-pseudo2.yaml")
    (extra,) = second.competition.extra  # the labels of the first round are gone
    assert (extra.path, extra.source) == ("runs/tiny-pseudo/pseudo/uniform-test", "tiny-pseudo")
    assert labels_in(Path(extra.path) / extra.table).groupby("fold").size().tolist() == [4, 4]
    record = json.loads((Path(extra.path) / "tiny-pseudo2.json").read_text())
    assert record["rounds"] == ["tiny", "tiny-pseudo"]
    # Without --after the rounds are found all the same.
    made = pseudo("tiny-pseudo", PseudoOptions(soft=True, replace=True))
    assert (made.config, made.rounds) == (Path("tiny-pseudo2.yaml"), ["tiny", "tiny-pseudo"])
    # Other folds in between, or another order, are refused.
    message = refusal(pseudo, "tiny-pseudo", PseudoOptions(after=["tiny"]))
    assert message.startswith(
        "--after tiny: follows tiny-pseudo in the command, but it trains on no pseudo-labels"
    )
    shutil.copy("runs/tiny/pseudo/uniform-test/tiny-pseudo.csv", "tiny.labels.csv")
    # Labels made anew are others to the round that was trained on them.
    pseudo("tiny", PseudoOptions(replace=True, share=0.5))
    assert "was made from other extra" in refusal(run, load_experiment("tiny-pseudo.yaml"))
    # A first round whose folds are not those of the second: its models have seen what this one holds out.
    folds = Path("runs/tiny/folds.csv")
    table = pd.read_csv(folds)
    table.assign(fold=1 - table["fold"]).to_csv(folds, index=False)
    Path("runs/tiny/manifest.json").unlink()  # as of an early version
    Path("runs/tiny-pseudo/manifest.json").unlink()
    shutil.copy("tiny.labels.csv", "runs/tiny/pseudo/uniform-test/tiny-pseudo.csv")
    message = refusal(pseudo, "tiny", PseudoOptions(after=["tiny-pseudo"], replace=True))
    assert message.startswith("tiny and tiny-pseudo followed other folds, so the models of a fold of the one")


@pytest.mark.parametrize("outside", [False, True])
def test_a_folder_of_images(root, outside):
    place = root.parent / "more {1}" if outside else root / "data/more"
    (place / "deep/.hidden").mkdir(parents=True)
    for name in ("test001", "test002"):
        shutil.copy(root / f"data/colours/test/{name}.png", place / f"deep/{name}.PNG")
        shutil.copy(root / f"data/colours/test/{name}.png", place / f"deep/.hidden/{name}.png")
    Image.new("RGB", (8, 8), (200, 40, 30)).save(place / "red,one.jpg")
    (place / "broken.png").write_bytes(b"no image")
    (place / "notes.txt").write_text("none")
    said: list[str] = []
    made = pseudo("tiny", PseudoOptions(soft=True, folder=place), say=said.append)
    assert made.table.parent.name == ("uniform-more-1" if outside else "uniform-more")
    assert any(line.startswith("1 of 4 images cannot be read and get no label") for line in said)
    table = labels_in(made.table)
    assert table["id"].tolist() == 2 * ["deep/test001.PNG", "deep/test002.PNG", "red,one.jpg"]
    classes = ["blue", "green", "red"]
    for fold in (0, 1):  # the very labels of the same images as test rows
        paths = sorted(root.glob(f"runs/tiny/uniform/seed*/fold{fold}/test.parquet"))
        expected = average([read_predictions(path) for path in paths]).loc[["test001", "test002"]]
        assert table[table["fold"] == fold][classes].to_numpy()[:2] == pytest.approx(expected.to_numpy(), abs=1e-5)
    extra = load_competition(load_experiment(made.config).competition).extra
    assert [Path(source).resolve() for source in extra.sources] == [
        (place / name).resolve() for name in ("deep/test001.PNG", "deep/test002.PNG", "red,one.jpg")
    ]
    # Beside the labels of the test rows, not in their place.
    both = pseudo("tiny", PseudoOptions(soft=True, name="both"))
    assert len(load_experiment(both.config).competition.extra) == 1


def test_a_programs_result_and_options_that_exclude_each_other(root, monkeypatch, capsys):
    code, out, _ = kit_here(monkeypatch, capsys, "pseudo", "tiny", "--soft", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["table"] == "runs/tiny/pseudo/uniform-test/tiny-pseudo.csv"
    assert [each["labelled"] for each in told["folds"]] == [9, 9]
    code, _, errors = kit_here(monkeypatch, capsys, "pseudo", "tiny", "--test", "--folder", "data")
    assert (code, errors.startswith("error: --test, --folder: give one of the two")) == (1, True)
