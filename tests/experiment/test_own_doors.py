"""A competition of arrays and parquet files, read, augmented and scored by own code, as one types it."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import f1_score
from support.colours import experiment_content, write_competition
from support.commands import kit_here
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit import load_experiment
from kit.competition.config import CompetitionConfig
from kit.core.runs import ExperimentDir
from kit.data.reading import Reading
from kit.experiment.config import validate
from kit.experiment.fingerprint import config_digest, stored_experiment
from kit.report.thumbnails import thumbnail

MINE = """
import numpy as np, pandas as pd
def read(path): return pd.read_parquet(path)
def pixels(path): return np.load(path)
def add_noise(pixels, random, scale=10):
    return np.clip(pixels + random.normal(0, scale, pixels.shape), 0, 255).astype(np.uint8)
def falling(clock): return 1 - clock.progress
"""
METRIC = """
from sklearn.metrics import f1_score
def worst(truth, predicted): return f1_score(truth, predicted, average=None).min()
"""
TABLES = ("train", "test", "sample_submission")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """The colour squares as .npy files, their tables as parquet."""
    folder = write_competition(tmp_path_factory.mktemp("data") / "arrays", rows=24, test_rows=6)
    for name in TABLES:
        pd.read_csv(folder / f"{name}.csv", dtype=str).to_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()
    for file in folder.rglob("*.png"):
        np.save(file.with_suffix(".npy"), np.asarray(Image.open(file)))
        file.unlink()
    return folder


AUGMENT = [{"mine.py:add_noise": {"p": 0.5}}, "HorizontalFlip"]


def written(home: Path, arrays: Path) -> Path:
    """Write the config and the files that it names."""
    (home / "mine.py").write_text(MINE)
    (home / "metric.py").write_text(METRIC)
    content = experiment_content(
        arrays,
        folds={"k": 2},
        data={"augment": AUGMENT, "decoder": "mine.py:pixels"},
        policies={},
        scoring={"metric": "metric.py:worst", "rule": "auto"},
    )
    content["policies"] = {"own": {"lr": 1e-2, "schedule": "mine.py:falling"}, "ours": {"lr": 1e-2}}
    content["competition"] |= {name: f"{name}.parquet" for name in TABLES} | {"tables": "mine.py:read"}
    content["competition"] |= {"train_images": "train/{id}.npy", "test_images": "test/{id}.npy"}
    (home / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return home / "config.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the config's files, in which a `run` was made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kit(home, arrays, monkeypatch, capsys):
    """Runs a command on the config, after what is to be changed in the files; returns code, output, errors."""
    config = written(home, arrays)

    def command(name: str, *words: str):
        return kit_here(monkeypatch, capsys, name, str(config), "--output", str(home / "out"), *words)

    if not (home / "out").exists():
        code, said, errors = command("run")
        assert code == 0, errors
        assert "Own code: metric.py, mine.py" in said
    return command


def scores_of(home: Path, policy="own") -> dict:
    return json.loads((home / f"out/runs/tiny/{policy}/scores.json").read_text())


def labels_of(home: Path, arrays: Path, policy="own") -> tuple[np.ndarray, np.ndarray]:
    """Truth and most probable class of the out-of-fold rows."""
    oof = pd.read_parquet(home / f"out/runs/tiny/{policy}/oof.parquet").set_index("id")
    truth = pd.read_parquet(arrays / "train.parquet").set_index("id")["label"].loc[oof.index]
    return truth.to_numpy(), oof.columns.to_numpy()[oof.to_numpy().argmax(axis=1)]


def test_run_trains_and_scores_by_own_code(kit, home, arrays):
    scores = scores_of(home)
    assert scores["metric"] == "worst"
    assert scores["oof"] == pytest.approx(f1_score(*labels_of(home, arrays), average=None).min())
    ids = pd.read_csv(home / "out/submissions/tiny.csv")["id"].tolist()
    assert ids == pd.read_parquet(arrays / "sample_submission.parquet")["id"].tolist()
    assert (home / "out/runs/tiny/metric.py").read_text() == METRIC


def test_audit_reads_images_and_tables_by_it(kit, home):
    code, said, errors = kit("audit")
    assert code == 0, errors
    assert re.search(r"NPY RGB", said)
    assert "What to do: nothing" in said


@pytest.mark.slow
def test_compare_and_report_and_predict_go_by_it(kit, home, arrays):
    code, said, errors = kit("compare")
    assert code == 0, errors
    assert "worst" in said
    comparison = json.loads((home / "out/runs/tiny/comparison.json").read_text())
    assert comparison["scoring"]["metric"]["code"] == scores_of(home)["scoring"]["metric"]["code"]
    assert "another scoring section" not in (home / "out/runs/tiny/report.html").read_text()
    code, _, errors = kit("predict", "--submission", str(home / "out/again.csv"))  # of a policy with own code
    assert code == 0, errors
    assert (home / "out/again.csv").read_text() == (home / "out/submissions/tiny.csv").read_text()


def test_a_blend_is_scored_by_it(kit, home, arrays, monkeypatch, capsys):
    code, _, errors = kit_here(
        *(monkeypatch, capsys, "blend", "tiny", "tiny/ours", "--name", "both", "--output", str(home / "out"))
    )
    assert code == 0, errors
    (record,) = (home / "out").rglob("blend.json")
    blend = json.loads(record.read_text())
    assert (blend["metric"], blend["scoring"]["metric"]) == ("worst", scores_of(home)["scoring"]["metric"])
    assert blend["members"][0]["oof"] == scores_of(home)["oof"]
    reader = CompetitionConfig.model_validate(blend["competition"]).tables  # as `kit submit` reads it, from here
    assert len(reader.function(arrays / "test.parquet")) == 6


def test_another_metric_scores_anew_and_trains_nothing(kit, home, arrays):
    before = scores_of(home)
    (home / "metric.py").write_text(METRIC.replace(".min()", ".mean() / 2"))
    code, said, errors = kit("run")
    assert code == 0, errors
    assert "Nothing to train: all 4 runs" in said
    after = scores_of(home)
    assert after["scoring"] != before["scoring"]
    assert after["oof"] == pytest.approx(f1_score(*labels_of(home, arrays), average="macro") / 2)
    (home / "metric.py").write_text(METRIC)
    assert kit("run")[0] == 0
    assert scores_of(home) == before


def test_another_decoder_is_another_experiment(kit, home, arrays):
    config = home / "config.yaml"
    before = config_digest(load_experiment(config))
    for old, new in (
        ("np.load(path)", "np.load(path) // 2"),
        ("scale=10", "scale=11"),
        ("read_parquet(path)", "x"),
    ):
        (home / "mine.py").write_text(MINE.replace(old, new))
        assert config_digest(load_experiment(config)) != before
    (home / "mine.py").write_text(MINE.replace("np.load(path)", "np.load(path) // 2"))
    code, _, errors = kit("run")
    assert code == 1
    assert "was made from another config (code.mine.py: " in " ".join(errors.replace("error:", "").split())


def test_what_is_wrong_is_one_line(kit, home):
    for change, line in (
        ("data.decoder=mine.py:falling", "mine.py:falling: mine.py:7: AttributeError: "),
        ("data.decoder=mine.py:pixel", "mine.py has no function or class 'pixel'; did you mean pixels?"),
        ("data.decoder=pillow", "data.decoder.name = 'pillow': expected code of your own, file.py:name or"),
        ("competition.tables=mine.py:pixels", "competition.train: "),
        ("scoring.rule=offsets", "scoring.rule: offsets is not for one label a row with a metric of your own"),
        ("scoring.metric=metric.py:f1_score", "ValueError: Target is multiclass but average='binary'"),
    ):
        code, _, errors = kit("run", "--set", change, "--set", "name=other")
        said = " ".join(errors.replace("error:", "").split())
        assert code == 1
        assert line.replace(" ", "") in said.replace(" ", "")
        assert "Traceback" not in errors


def test_the_stored_experiment_finds_its_code(kit, home, arrays):
    stored = stored_experiment(ExperimentDir(home / "out/runs/tiny"))
    own = stored.data.decoder
    assert own.function(arrays / "train/train000.npy").shape == (24, 24, 3)
    assert thumbnail(arrays / "train/train000.npy", Reading.of(stored.data)).startswith("data:image/")
    assert thumbnail(arrays / "train/train000.npy") is None


@pytest.mark.parametrize("decoder", ["mine.py:picture", "PIL.Image:open"])
def test_a_killed_run_goes_on_to_the_same_bits(competition, tmp_path, monkeypatch, decoder):
    picture = "def picture(path): return np.asarray(Image.open(path))\n"
    (tmp_path / "mine.py").write_text(MINE + "from PIL import Image\n" + picture)
    monkeypatch.chdir(tmp_path)
    data = {"augment": AUGMENT, "decoder": decoder}
    policies = {"uniform": {"lr": 1e-2, "schedule": "mine.py:falling"}}
    options = {"training": {"checkpoint_minutes": 0}, "policies": policies}
    whole = trainer_of(competition, tmp_path / "whole", data=data | {"workers": 1, "cache": False}, **options)
    expected = outcome(whole, whole.train())
    with pytest.raises(Killed):
        trainer_of(competition, tmp_path / "killed", data=data, **options).train(on_step=kill_at(1))
    second = trainer_of(competition, tmp_path / "killed", data=data, **options)
    assert outcome(second, second.train()) == expected
    plain = trainer_of(competition, tmp_path / "plain", data={"augment": AUGMENT}, **options)
    assert outcome(plain, plain.train()) == expected  # the decoder gives what the kit's does


def test_own_code_is_no_more_than_ten_lines():
    assert len(MINE.splitlines()) <= 10
    assert len(METRIC.splitlines()) <= 10


def test_the_keys_are_no_part_of_a_fingerprint_without_own_code(competition):
    canonical = validate(experiment_content(competition), "test").canonical()
    for section, key in (("competition", "tables"), ("data", "decoder"), ("scoring", "metric")):
        assert key not in canonical[section]
