"""Features once, heads in the place of trainings: run, kept, predicted, refused."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.commands import kit_here

from kit.core.errors import KitError
from kit.core.runs import ExperimentDir, RunDir
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.features import extract, head_run
from kit.experiment.predict import predict_test
from kit.experiment.pseudo import pseudo
from kit.experiment.run import run


@pytest.fixture(scope="module")
def competition(tmp_path_factory) -> Path:
    return write_competition(tmp_path_factory.mktemp("data") / "colours")


def content(competition: Path, **sections) -> dict:
    made = experiment_content(competition, **{"features": {"heads": ["logistic"]}, **sections})
    made.pop("policies")
    return made


def experiment(competition: Path, **sections) -> ExperimentConfig:
    return validate(content(competition, **sections), "test")


@pytest.fixture(scope="module")
def done(competition, tmp_path_factory):
    """All heads, run once: the config, where, what came of it, and what was said."""
    config = experiment(competition, features={"heads": ["logistic", "ridge", "svm", "knn", "prototypes"]})
    output, said = tmp_path_factory.mktemp("done"), []
    return config, output, run(config, output, say=said.append), said


def test_all_heads_learn_the_colours(done):
    _, output, result, said = done
    assert result.trained == 15
    assert {name: outcome.scores.oof > 0.9 for name, outcome in result.policies.items()} == dict.fromkeys(
        ["logistic", "ridge", "svm", "knn", "prototypes"], True
    )
    assert any("random weights" in line for line in said)
    features = sorted((output / "cache").glob("features-*.npy"))
    assert len(features) == 2  # of train and test images, once for all heads and folds
    assert sorted(np.load(file).shape[0] for file in features) == [9, 36]
    record = ExperimentDir(result.folder).finished("ridge")[0].record
    assert (record.kind, record.status) == ("head", "finished")
    assert not (result.folder / "curves.png").exists()
    assert (head_run._bodies, extract._read.cache_info().currsize) == ({}, 0)  # nothing is held in memory


def test_nothing_is_done_twice_and_a_head_more_is_fitted_alone(done, competition):
    config, output, result, _ = done
    stamps = {file: file.stat().st_mtime_ns for file in (output / "cache").glob("features-*")}
    assert run(config, output).trained == 0
    more = dict.fromkeys(config.features.heads) | {"sharp": {"name": "logistic", "C": [1.0]}}
    again = run(experiment(competition, features={"heads": more}), output)
    assert (again.trained, again.kept) == (3, 15)
    assert {file: file.stat().st_mtime_ns for file in (output / "cache").glob("features-*")} == stamps
    stored = yaml.safe_load((result.folder / "experiment.yaml").read_text())
    assert list(stored["features"]["heads"]) == [*config.features.heads, "sharp"]
    assert "policies" not in stored


def test_the_test_set_is_predicted_anew_with_the_arrays(done, tmp_path):
    config, output, result, _ = done
    folder = ExperimentDir(result.folder).finished("knn")[0]
    before = {name: getattr(folder, name).read_bytes() for name in ("oof", "test")}
    folder.oof.unlink()
    folder.test.write_bytes(b"damaged")
    said: list[str] = []
    run(config, output, say=said.append)
    assert folder.oof.read_bytes() == before["oof"]
    assert folder.test.read_bytes() == before["test"]
    assert sum("to the same bits" in line for line in said) == 2


def test_a_changed_test_set_extracts_the_test_part_alone(tmp_path):
    folder = write_competition(tmp_path / "colours", rows=18, test_rows=6)
    config = experiment(folder)
    run(config, tmp_path)
    before = set((tmp_path / "cache").glob("features-*"))
    (folder / "test" / "test000.png").write_bytes((folder / "test" / "test001.png").read_bytes())
    said: list[str] = []
    again = run(config, tmp_path, say=said.append)
    assert again.trained == 0
    assert len(set((tmp_path / "cache").glob("features-*")) - before) == 1
    frame = pd.read_parquet(RunDir(again.folder / "logistic/seed0/fold0").test).set_index("id")
    np.testing.assert_array_equal(frame.loc["test000"], frame.loc["test001"])


def test_damaged_features_are_computed_anew(done):
    config, output, _, _ = done
    (file,) = [each for each in (output / "cache").glob("features-*.npy") if np.load(each).shape[0] == 36]
    whole = file.read_bytes()
    file.write_bytes(whole[:-300] + bytes(300))
    extract._whole.clear()
    extract._read.cache_clear()
    said: list[str] = []
    folder = ExperimentDir(output / "runs" / config.name).finished("ridge")[0]
    folder.oof.unlink()
    run(config, output, say=said.append)
    assert file.read_bytes() == whole
    assert any("is damaged" in line and "features" in line for line in said)


def test_an_unreadable_test_image_gets_the_prior(tmp_path):
    folder = write_competition(tmp_path / "colours", rows=18, test_rows=6)
    (folder / "test" / "test002.png").write_bytes(b"no image")
    result = run(experiment(folder), tmp_path)
    place = RunDir(result.folder / "logistic/seed0/fold1")
    prior = place.read_oof().to_numpy().mean(axis=0)
    np.testing.assert_allclose(place.read_test().loc["test002"], prior, atol=1e-6)


def test_predict_gives_what_the_runs_predicted(done, tmp_path):
    config, output, result, _ = done
    made = predict_test(config, submission=tmp_path / "submission.csv", output=output)
    assert (made.models, made.of) == (3, 3)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "submission.csv"), pd.read_csv(result.policies["logistic"].submission)
    )


def test_predict_refuses_another_body(competition, tmp_path):
    from safetensors.torch import save_file

    from kit.model.build import build_model

    config = experiment(competition)
    for seed, name in ((1, "one"), (2, "two")):
        model = build_model(config.model, 3, 3, 32, seed)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    first, second = (
        experiment(competition, model={"weights": str(tmp_path / f"{name}.safetensors")})
        for name in ("one", "two")
    )
    run(first, tmp_path)
    with pytest.raises(KitError, match="other weights of test_resnet"):
        predict_test(second, [tmp_path / "runs"], tmp_path / "submission.csv", tmp_path / "other")


def test_command_of_any_config_and_its_json(competition, tmp_path, monkeypatch, capsys):
    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(experiment_content(competition, seeds=[3, 4])))
    words = (
        "features",
        str(file),
        "--head",
        "ridge",
        "--head",
        "knn",
        "--views",
        "hflip",
        "--output",
        str(tmp_path),
    )
    code, out, errors = kit_here(monkeypatch, capsys, *words, "--json")
    assert code == 0, errors
    told = json.loads(out)
    assert [each["head"] for each in told["heads"]] == ["ridge", "knn"]
    assert told["folder"] == str(tmp_path / "runs" / "tiny-features")
    assert all(each["low"] <= each["oof"] <= each["high"] for each in told["heads"])
    assert (tmp_path / "runs/tiny-features/ridge/seed3/fold0/run.json").is_file()
    code, out, _ = kit_here(monkeypatch, capsys, *words)
    assert code == 0
    assert "0 of" not in out
    assert "macro F1, out of fold" in out


def test_all_blocks_and_their_picture(competition, tmp_path, monkeypatch, capsys):
    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(experiment_content(competition)))
    words = (
        "features",
        str(file),
        "--set",
        "folds.run=[1]",
        "--block",
        "all",
        "--output",
        str(tmp_path),
        "--json",
    )
    code, out, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 0, errors
    told = json.loads(out)
    # last is layer4.0, pooled: it counts once
    assert [each["block"] for each in told["heads"]] == ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    assert Path(told["picture"]).read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "cache").glob("features-*.npy"))) == 10


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"features": {"heads": "logistics"}}, "logistics: there is no such head; take one of logistic, "),
        ({"features": {"heads": {"mine": {"name": "forest"}}}}, "heads.mine"),
        ({"features": {"heads": {"logistic": {"C": [0]}}}}, "C[0] = 0"),
        ({"features": {"heads": {"knn": {"neighbours": [5, 5]}}}}, "none twice"),
        ({"features": {"heads": "knn", "block": "all"}}, "--block all"),
        ({"features": {"heads": "knn", "views": ["vflip"]}}, "hflip"),
        ({"features": {"heads": {}}}, "features.heads"),
        ({"features": {"heads": "knn"}, "seeds": [0, 1]}, "heads are the same for each seed"),
        ({"features": {"heads": "knn"}, "policies": {"flat": {"lr": 0.1}}}, "leave policies out"),
    ],
)
def test_configs_that_are_refused(competition, sections, said):
    made = content(competition)
    made |= sections
    with pytest.raises(KitError) as raised:
        validate(made, "test")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value"), [("extra", {"table": "more.csv", "images": "more/{id}.png"}), ("weight", "certainty")]
)
def test_rows_that_are_not_for_heads_are_refused(competition, tmp_path, monkeypatch, capsys, key, value):
    """Before anything is built or computed, by whatever command."""
    monkeypatch.chdir(tmp_path)
    said = (
        f"competition.{key}: heads over features are fitted on the rows of the train table, each alike; leave it"
    )
    heads, networks = content(competition), experiment_content(competition)
    for name, stated in (("heads.yaml", heads), ("any.yaml", networks)):
        stated["competition"] |= {"slug": "colours", key: value}
        Path(name).write_text(yaml.safe_dump(stated))
    commands = [
        ("run", "heads.yaml"),
        ("kernel", "build", "heads.yaml", "--kind", "train"),
        ("features", "any.yaml"),
    ]
    for words in commands:
        code, _, errors = kit_here(monkeypatch, capsys, *words)
        assert code == 1
        assert said in errors
    assert not list(tmp_path.glob("*/"))


def test_a_block_that_is_none_is_refused_with_those_there_are(competition, tmp_path):
    with pytest.raises(KitError, match=r"there is no 'layer9'.*conv1, layer1.0"):
        run(experiment(competition, features={"heads": "knn", "block": "layer9"}), tmp_path)


def test_policies_are_chosen_among_heads(competition, tmp_path, monkeypatch, capsys):
    file = tmp_path / "heads.yaml"
    file.write_text(yaml.safe_dump(content(competition, features={"heads": ["logistic", "knn"]})))
    words = ("run", str(file), "--output", str(tmp_path), "--policy", "knn", "--json")
    code, out, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 0, errors
    assert list(json.loads(out)["policies"]) == ["knn"]
    code, _, errors = kit_here(monkeypatch, capsys, *words[:-2], "flat")
    assert code == 1
    assert "there is no head flat in features.heads" in errors


@pytest.mark.parametrize("command", ["lr", "find-lr"])
def test_commands_about_rates_refuse_heads(competition, tmp_path, monkeypatch, capsys, command):
    file = tmp_path / "heads.yaml"
    file.write_text(yaml.safe_dump(content(competition)))
    code, _, errors = kit_here(monkeypatch, capsys, command, str(file))
    assert code == 1
    assert "heads over features have no rates" in errors


def test_heads_are_compared_reported_and_blended_like_policies(done):
    from kit.comparison.compare import compare
    from kit.experiment.blend import blend
    from kit.experiment.examine import examine_runs
    from kit.report.gather import write_report

    config, output, result, _ = done
    two = config.with_features(
        config.features.model_copy(
            update={"heads": {name: config.features.heads[name] for name in ("ridge", "knn")}}
        )
    )
    compared = compare(two, output, stored=True)
    assert [each.policy for each in compared.content.views[0].policies] == ["ridge", "knn"]
    page = write_report("tiny", output).file.read_text()
    assert "prototypes" in page
    assert "macro F1 by policy</h1>" in page
    assert not {">Learning curves<", ">Intended and realised rates<"} & set(re.findall(r">[^<>]+<", page))
    blended = blend(["tiny/ridge", "tiny/knn"], output)
    assert blended.submission.is_file()
    (folder,) = examine_runs([result.folder])
    assert {run.state for run in folder.runs} == {"complete"}
    assert not folder.faults


@pytest.mark.parametrize("heads", ["ridge", {"near": {"name": "knn"}}, {"ridge": {"name": "svm", "C": [0.5]}}])
def test_the_kind_of_a_head_is_stated_though_it_is_a_default(competition, heads):
    config = experiment(competition, features={"heads": heads})
    stated = yaml.safe_load(config.to_yaml(stated_only=True))
    assert validate(stated, "test").features == config.features


def test_another_seed_is_another_experiment_of_heads(competition, tmp_path):
    """As seeds stand in experiment.yaml, which could not be read again with two of them."""
    run(experiment(competition, seeds=[0]), tmp_path)
    with pytest.raises(KitError, match=r"seeds: \[0\] there, \[3\] here"):
        run(experiment(competition, seeds=[3]), tmp_path)
    assert run(experiment(competition, seeds=[0]), tmp_path).trained == 0
    named = experiment(competition, seeds=[3], name="other")
    run(named, tmp_path)  # random weights of another seed, in the same process
    one, two = (ExperimentDir(tmp_path / "runs" / name).finished("logistic")[0] for name in ("tiny", "other"))
    assert one.record.initial_weights != two.record.initial_weights


def test_features_of_changed_own_code_are_computed_anew(competition, tmp_path):
    """Its weights are the same, and what it makes of images is not."""
    import kit

    made = {}
    for name, factor in (("first", 1), ("second", -1)):
        (tmp_path / "net.py").write_text(OWN.format(factor=factor))
        config = tmp_path / f"{name}.yaml"
        stated = content(competition, name=name, model={"name": "net.py:Net"}, features={"heads": "knn"})
        config.write_text(yaml.safe_dump(stated))
        run(kit.load_experiment(config), tmp_path)
        made[name] = {file.name: np.load(file) for file in (tmp_path / "cache").glob("features-*.npy")}
    others = [values for name, values in made["second"].items() if name not in made["first"]]
    assert len(others) == 2
    firsts = {len(values): values for values in made["first"].values()}
    for values in others:
        np.testing.assert_allclose(values, -firsts[len(values)])


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_chans=3, **options):
        super().__init__()
        self.num_classes = num_classes
        self.conv, self.fc = nn.Conv2d(in_chans, 4, 3), nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc({factor} * self.conv(images).mean(dim=(2, 3)))
"""


def test_keys_that_decide_nothing_here_are_told(competition, tmp_path):
    from kit.comparison.features import features

    stated = experiment_content(
        competition, prediction={"views": ["hflip"], "average": "logits"}, training={"class_weights": "balanced"}
    )
    said: list[str] = []
    features(validate(stated, "test"), heads="knn", output=tmp_path, say=said.append)
    told = "\n".join(said)
    assert "prediction.views, prediction.average: left out, as heads see the features of one image" in told
    assert "training.class_weights: for trainings alone; heads are fitted on each training row alike" in told


def test_a_cluster_is_refused_before_anything_is_decoded(done, tmp_path, monkeypatch):
    from kit.experiment.options import RunOptions

    config, output, _, _ = done
    monkeypatch.setattr(RunOptions, "need_cluster", lambda options, processes: None)
    with pytest.raises(KitError, match="--on: heads over features predict on this machine"):
        predict_test(config, (), tmp_path / "submission.csv", RunOptions(output, tmp_path / "cache", on="ray"))
    assert not (tmp_path / "cache").exists()


def test_the_views_of_features_are_those_that_are_told(competition, tmp_path):
    config = experiment(competition, features={"heads": "knn", "views": ["hflip"]})
    run(config, tmp_path)
    assert predict_test(config, submission=tmp_path / "submission.csv", output=tmp_path).views == "plain + hflip"


def test_heads_have_no_next_round_of_pseudo_labels(done):
    """What `pseudo` writes has to be a config that `run` takes."""
    config, output, _, _ = done
    with pytest.raises(KitError, match="train on no extra rows"):
        pseudo(config.name, output=output)


def test_the_report_shows_scores_by_depth(competition, tmp_path):
    """Of heads that differ in their block alone: the scores and intervals of the table."""
    from kit.comparison.features import features
    from kit.report.gather import write_report

    made = features(validate(experiment_content(competition), "test"), block="all", output=tmp_path)
    page = write_report("tiny-blocks", tmp_path).file.read_text()
    drawn = json.loads(page.split('<script type="application/json" id="figures">')[1].split("</script>")[0])
    band, folds, pooled = drawn["score-by-block"]["data"]
    assert pooled["y"] == pytest.approx([head.oof for head in made.heads], abs=1e-4)
    assert [text.partition(":")[0] for text in pooled["text"]] == [head.block for head in made.heads]
    assert folds["y"] == pytest.approx([score for head in made.heads for score in head.folds], abs=1e-4)
    ends = [head.high for head in made.heads] + [head.low for head in reversed(made.heads)]
    assert band["y"] == pytest.approx(ends, abs=1e-4)
    assert go.Figure(drawn["score-by-block"]).data  # one that Plotly takes
    assert "Scores by depth of the body" in page


def test_the_report_on_other_heads_has_no_depth(done):
    from kit.report.gather import write_report

    page = write_report("tiny", done[1]).file.read_text()
    assert "score-by-block" not in page
    assert "Scores by depth of the body" not in page
