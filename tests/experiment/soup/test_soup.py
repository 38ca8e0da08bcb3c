"""Soups: the mean of weights by its definition, kept or not by the score, and what cannot be averaged."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.colours import experiment_content
from support.refusals import refusal_of
from torch import nn
from typer.testing import CliRunner

import kit
from kit.cli.main import app
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.config import validate
from kit.experiment.fingerprint import config_digest
from kit.experiment.prepare import prepare
from kit.experiment.soup import average, make
from kit.experiment.train_run import trainer_of
from kit.model.build import build_model
from kit.training.device import make_accelerator


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A weight file that all seeds begin from."""
    file = tmp_path_factory.mktemp("weights") / "body.safetensors"
    scratch = experiment_content(file)["model"] | {"weights": "none"}
    model = build_model(validate_model(scratch), 3, 3, 32, 7)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return file


def validate_model(content):
    from kit.model.config import ModelConfig

    return ModelConfig.model_validate(content)


def content_of(competition, pretrained, **sections):
    stated = {"model": {"weights": str(pretrained)}, "seeds": [0, 1, 2], "training": {"epochs": 1}}
    return experiment_content(competition, **stated | sections)


@pytest.fixture(scope="module")
def trained(competition, pretrained, tmp_path_factory):
    """Three seeds in three folds: (output folder, config)."""
    output = tmp_path_factory.mktemp("trained")
    config = validate(content_of(competition, pretrained), "test")
    kit.run(config, output)
    return output, config


@pytest.fixture(scope="module")
def made(trained):
    return kit.soup("tiny", output=trained[0])


def test_weights_are_the_mean_over_seeds(trained, made):
    folder = ExperimentDir(trained[0] / "runs/tiny")
    for fold in range(3):
        parts = [load_file(folder.run(RunKey("uniform", seed, fold)).weights) for seed in (0, 1, 2)]
        soup = load_file(made.folder / f"uniform/seed0/fold{fold}/weights.safetensors")
        for name, value in soup.items():
            if "running" not in name and "num_batches" not in name:
                mean = torch.stack([part[name].double() for part in parts]).mean(0)
                torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-8, msg=name)


def test_norms_are_estimated_on_the_training_images_of_the_fold(trained, made):
    output, config = trained
    loaded, data = prepare(config, ExperimentDir(output / "runs/tiny"), OutputDirs(output), shown=False)
    key = RunKey("uniform", 0, 1)
    trainer = trainer_of(key, loaded, data, loaded.folder.run(key), make_accelerator(config.training))
    model = trainer.model
    model.load_state_dict(load_file(made.folder / "uniform/seed0/fold1/weights.safetensors"))
    model.eval()
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    stored = {name: module.running_mean.clone() for name, module in norms.items()}
    seen = {name: [] for name in norms}
    for name, module in norms.items():
        module.train()
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].detach()))
    with torch.no_grad():
        for inputs in trainer._some_inputs(50):
            model(inputs)
    for name, kept in stored.items():
        expected = torch.stack([each.mean((0, 2, 3)) for each in seen[name]]).mean(0)
        torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-5)


def test_the_score_that_is_told_is_that_of_its_predictions(trained, made, competition):
    output, _ = trained
    truth = pd.read_csv(competition / "train.csv").set_index("id")["label"]
    oof = pd.read_parquet(made.folder / "uniform/oof.parquet").set_index("id")
    from sklearn.metrics import f1_score

    assert made.soup == pytest.approx(f1_score(truth[oof.index], oof.idxmax(axis=1), average="macro"))
    scores = json.loads((output / "runs/tiny/uniform/scores.json").read_text())
    assert made.together == scores["oof"]
    assert len(made.alone) == 3
    assert made.kept == (made.soup >= made.together - 0.002)


def test_what_is_kept_predicts_as_one_model_a_fold(trained, made, monkeypatch):
    """By the commands that take runs: nothing is trained again, and another test set is predicted with it."""
    output, _ = trained
    if not made.kept:
        pytest.skip("this soup was not kept")
    config = kit.load_experiment(made.folder / "experiment.yaml")
    again = kit.run(config, output)
    assert again.trained == 0
    predicted = kit.predict(config, submission=output / "again.csv", output=output)
    assert (predicted.models, predicted.of) == (3, 3)
    assert (output / "again.csv").read_text() == made.submission.read_text()
    run = ExperimentDir(made.folder).run(RunKey("uniform", 0, 2))
    expected = run.read_oof()
    run.oof.unlink()
    kit.run(config, output)
    np.testing.assert_allclose(run.read_oof(), expected, atol=1e-6)
    record = run.record
    assert record.kind == "soup"
    assert set(record.soup) == {f"uniform/seed{seed}/fold2" for seed in (0, 1, 2)}


def test_a_soup_that_is_worse_is_not_kept(trained, tmp_path, monkeypatch):
    output = shutil.copytree(trained[0], tmp_path / "copy")
    spoiled = lambda runs: {name: -value for name, value in load_file(runs[0].weights).items()}  # noqa: E731
    monkeypatch.setattr(average, "mean_weights", spoiled)
    monkeypatch.setattr(make, "TIE", -2.0)  # nothing is good enough
    found = kit.soup("tiny/uniform", output=output)
    assert not found.kept
    assert not found.folder.exists()
    assert not (output / "submissions/tiny-soup.csv").exists()
    assert found.remarks()[0].startswith("Not kept: ")
    assert "nothing was left" in found.remarks()[0]

    labels = found.folder / "pseudo/uniform-test/next.csv"  # an earlier soup's, on which others may train
    labels.parent.mkdir(parents=True)
    labels.write_text("id\n")
    again = kit.soup("tiny/uniform", output=output)
    assert [path for path in again.folder.rglob("*") if path.is_file()] == [labels]
    assert f"only {again.folder / 'pseudo'} was left" in again.remarks()[0]


def test_as_typed(competition, pretrained, tmp_path, monkeypatch):
    config = validate(content_of(competition, pretrained, seeds=[3, 4], folds={"k": 3, "run": [0, 2]}), "test")
    kit.run(config, tmp_path)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["soup", "tiny", "--threads", "1"])
    assert said.exit_code == 0, said.output
    assert "all seeds together" in said.output
    assert "seed 4 alone" in said.output


def test_models_that_began_from_random_weights_are_refused(competition, tmp_path):
    content = experiment_content(competition, seeds=[0, 1], training={"epochs": 1}, folds={"k": 3, "run": [0]})
    kit.run(validate(content, "test"), tmp_path)
    told = refusal_of(lambda: kit.soup("tiny", output=tmp_path))
    assert "each seed began from random weights of its own" in told
    content |= {"name": "soup", "seeds": [0], "soup": {"of": "tiny", "seeds": [0, 1]}}
    told = refusal_of(lambda: kit.run(validate(content, "test"), tmp_path))
    assert "each seed began from random weights of its own" in told


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_chans=3, same_head=True):
        super().__init__()
        self.num_classes = num_classes
        self.conv, self.fc = nn.Conv2d(in_chans, 4, 3), nn.Linear(4, num_classes)
        fixed = torch.Generator().manual_seed(7)  # in the place of a file that it would load
        with torch.no_grad():
            for value in self.parameters() if same_head else self.conv.parameters():
                value.uniform_(-0.1, 0.1, generator=fixed)

    def forward(self, images):
        return self.fc(self.conv(images).mean(dim=(2, 3)))

    def depth_groups(self):
        return [self.conv, self.fc]
"""


@pytest.mark.parametrize("same_head", [True, False])
def test_an_own_network_that_loads_its_own_weights_is_taken_where_its_runs_show_that(
    competition, tmp_path, same_head
):
    """Not where it drew some of them: whether those are all, only its code knows."""
    (tmp_path / "net.py").write_text(OWN)
    content = experiment_content(
        competition,
        model={"name": "net.py:Net", "options": {"same_head": same_head}},
        policies={"uniform": {"lr": 1e-4}},
        seeds=[0, 1],
        training={"epochs": 1},
        folds={"k": 3, "run": [0]},
    )
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    kit.run(kit.load_experiment(tmp_path / "own.yaml"), tmp_path)
    if same_head:
        made = kit.soup("tiny", output=tmp_path)
        assert made.kept
        assert made.seeds == [0, 1]
        return
    told = refusal_of(lambda: kit.soup("tiny", output=tmp_path))
    assert "net.py:Net began with other weights under each seed (initial_weights in run.json)" in told
    assert "random weights of its own" not in told


def test_one_seed_is_no_soup(competition, pretrained, tmp_path):
    content = content_of(competition, pretrained, seeds=[5], folds={"k": 3, "run": [0]})
    kit.run(validate(content, "test"), tmp_path)
    assert refusal_of(lambda: kit.soup("tiny", output=tmp_path)).startswith(
        "soup: tiny has 1 seed that is finished in every fold, and a mean takes two or more"
    )
    assert refusal_of(lambda: kit.soup("huge", output=tmp_path)).startswith("soup: ")


def test_runs_of_another_config_or_other_weights_are_refused(trained, competition, pretrained, tmp_path):
    output, _ = trained
    stated = content_of(competition, pretrained, seeds=[0], training={"epochs": 1, "label_smoothing": 0.1})
    stated |= {"name": "other-soup", "soup": {"of": "tiny", "seeds": [0, 1]}}
    told = refusal_of(lambda: kit.run(validate(stated, "test"), output))
    assert "was trained under another config than the soup's" in told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"soup": {"of": "tiny", "seeds": [1]}}, "soup.seeds"),
        ({"soup": {"of": "tiny", "seeds": [1, 1]}}, "the same one stands there twice"),
        ({"soup": {"of": "tiny", "seeds": [0, 1]}, "seeds": [0, 1]}, "soup: it is of one policy"),
        (
            {"soup": {"of": "a", "seeds": [0, 1]}, "policies": None, "features": {"heads": "knn"}},
            "soup: weights",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything(competition, change, said):
    content = experiment_content(competition) | change
    content = {name: value for name, value in content.items() if value is not None}
    assert said in refusal_of(lambda: validate(content, "test"))


def test_a_budget_of_trainings_is_none_of_the_soup(trained, tmp_path):
    """A soup of some folds alone would be set against all of them."""
    output = shutil.copytree(trained[0], tmp_path / "copy")
    config = trained[1].model_copy(update={"budget": 0.02, "name": "short"})
    shutil.move(output / "runs/tiny", output / "runs/short")
    (output / "runs/short/experiment.yaml").write_text(config.to_yaml())
    (output / "runs/short/manifest.json").unlink()
    found = kit.soup("short", output=output)
    assert found.soup >= 0
    assert kit.load_experiment(found.folder / "experiment.yaml").budget is None
    assert len(ExperimentDir(found.folder).finished("uniform")) == 3


def test_models_that_predicted_in_other_views_are_refused(trained, tmp_path):
    output = shutil.copytree(trained[0], tmp_path / "copy")
    run = ExperimentDir(output / "runs/tiny").run(RunKey("uniform", 1, 2))
    run.write(run.record.with_fields(predicted={"turns": ["hflip"]}))
    told = refusal_of(lambda: kit.soup("tiny", output=output))
    assert told.startswith("soup: 1 of 9 models of tiny predicted in plain + hflip, and a soup would in one view")


def test_models_of_an_early_version_make_a_soup(trained, tmp_path):
    """It counted the views of a prediction among what decides a training."""
    output, config = trained
    output = shutil.copytree(output, tmp_path / "copy")
    run = ExperimentDir(output / "runs/tiny").run(RunKey("uniform", 1, 2))
    then = run.record.depends_on | {"config": config_digest(config, "hflip")}
    run.write(run.record.with_fields(depends_on=then, predicted={}))
    assert kit.soup("tiny", output=output).soup >= 0


def test_heads_on_the_body_of_a_soup_can_be_read_again(trained, made, tmp_path):
    if not made.kept:
        pytest.skip("this soup was not kept")
    soup = kit.load_experiment(made.folder / "experiment.yaml")
    heads = kit.features(soup, heads="knn", output=tmp_path)
    assert kit.load_experiment(heads.folder / "experiment.yaml").soup is None


def test_a_soup_has_one_seed_and_one_policy(trained, made):
    if not made.kept:
        pytest.skip("this soup was not kept")
    soup = kit.load_experiment(made.folder / "experiment.yaml")
    for change in ({"seeds": (1,)}, {"policies": {"other": soup.policies["uniform"]}}):
        told = refusal_of(lambda change=change: kit.run(soup.model_copy(update=change), trained[0]))
        assert next(iter(change)) in told
    assert kit.run(soup, trained[0]).trained == 0
