"""Kernels of heads over features: built, rehearsed, and refused where the body could not be had."""

import ast
from pathlib import Path

import pytest
import yaml
from support.colours import experiment_content, write_competition


def write_config(**sections) -> None:
    content = experiment_content(
        Path("data/colours"),
        name="heads",
        competition={"slug": "colours"},
        features={"heads": ["logistic", "knn"], "views": ["hflip"]},
        kernel={"owner": "tester", "accelerator": "none", "hours": 0.2, "kernels": ["tester/heads-train"]},
        **sections,
    )
    content.pop("policies")
    Path("heads.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_train_and_infer_kernels_of_heads_pass_rehearsal(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_competition(Path("data/colours"))
    write_config()
    for kind, told_of in (
        ("train", "ok     runs: 6 of 6 finished"),
        ("infer", "ok     submission.csv: valid, 9 rows"),
    ):
        code, told = kit("kernel", "build", "heads.yaml", "--kind", kind)
        assert code == 0, told
        code, told = kit("kernel", "rehearse", f"kernels/build/heads-{kind}")
        assert code == 0, told
        assert told_of in told


def test_the_head_of_a_kernel_says_which_heads_it_fits(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_competition(Path("data/colours"))
    write_config()
    code, told = kit("kernel", "build", "heads.yaml", "--kind", "train")
    assert code == 0, told
    about = ast.get_docstring(ast.parse(Path("kernels/build/heads-train/heads-train.py").read_text()))
    said = yaml.safe_load(about.partition("config\n")[2])
    assert said["features"]["heads"] == {"logistic": {"name": "logistic"}, "knn": {"name": "knn"}}


@pytest.mark.parametrize(
    ("weights", "said"),
    [("hub", "hub needs a network, which an infer kernel never has"), ("body.safetensors", "has to be attached")],
)
def test_an_infer_kernel_has_to_find_the_body(kit, tmp_path, monkeypatch, weights, said):
    monkeypatch.chdir(tmp_path)
    write_competition(Path("data/colours"))
    write_config(model={"weights": weights})
    code, told = kit("kernel", "build", "heads.yaml", "--kind", "infer")
    assert code == 1
    assert said in told
