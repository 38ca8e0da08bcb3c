"""Own code of an experiment: its digest decides results, and it is kept with the runs."""

import shutil

import pytest
import yaml
from support.colours import experiment_content

from kit import KitError, RunOptions, load_experiment, run
from kit.core.runs import ExperimentDir
from kit.experiment.fingerprint import config_digest, policy_digest, stored_experiment
from kit.experiment.own_files import files_of_code
from kit.lr import PolicyGroup

MINE = """
from helper import half
def falling(clock): return 1 - half * clock.progress
def focal(logits, targets, gamma=2):
    log = logits.log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    return -((1 - log.exp()) ** gamma) * log
"""


@pytest.fixture
def config(competition, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/mine.py").write_text(MINE)
    (tmp_path / "home/helper.py").write_text("half = 0.5\n")

    def of(**sections):
        policies = {"mine": {"lr": 1e-2, "schedule": "mine.py:falling"}, "ours": {"lr": 1e-2}}
        content = experiment_content(competition, folds={"run": [0]}, training={"epochs": 1}, policies=policies)
        for name, section in sections.items():
            content[name] = section if name == "policies" else content.get(name, {}) | section
        path = tmp_path / "home/config.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return of


def test_the_digest_is_of_the_file_and_of_what_it_imports(config, tmp_path):
    first = load_experiment(config())
    (tmp_path / "home/helper.py").write_text("half = 0.4\n")
    second = load_experiment(config())
    assert first.code.keys() == second.code.keys() == {"mine.py"}
    assert first.code != second.code
    assert policy_digest(first, first.policies["mine"]) != policy_digest(second, second.policies["mine"])
    assert policy_digest(first, first.policies["ours"]) == policy_digest(second, second.policies["ours"])
    assert config_digest(first) == config_digest(second)  # nothing but a policy names it


def test_what_all_runs_share_decides_all_runs(config, tmp_path):
    loss = {"training": {"loss": {"name": "mine.py:focal"}}}
    first = config_digest(load_experiment(config(**loss)))
    (tmp_path / "home/mine.py").write_text(MINE.replace("(1 - log.exp())", "(1.1 - log.exp())"))
    assert config_digest(load_experiment(config(**loss))) != first


def test_line_ends_change_nothing(config, tmp_path):
    first = load_experiment(config()).code
    (tmp_path / "home/mine.py").write_bytes(MINE.replace("\n", "\r\n").encode())
    assert load_experiment(config()).code == first


def test_runs_of_other_code_are_not_taken_and_stored_ones_can_be_read(config, tmp_path):
    run(load_experiment(config()), tmp_path / "out")
    folder = ExperimentDir(tmp_path / "out/runs/tiny")
    assert (folder.path / "helper.py").read_text() == "half = 0.5\n"
    stored = stored_experiment(folder)
    assert stored.code == load_experiment(config()).code
    assert stored.policies["mine"].build().fraction  # by the files beside it
    (tmp_path / "home/helper.py").write_text("half = 0.4\n")
    with pytest.raises(KitError, match=r"made from another config \(code.mine.py: "):
        run(load_experiment(config()), tmp_path / "out")
    run(load_experiment(config()), RunOptions(tmp_path / "out", replace=True))
    assert (folder.path / "helper.py").read_text() == "half = 0.4\n"


def test_a_stored_config_is_refused_with_other_code(config, tmp_path):
    run(load_experiment(config()), tmp_path / "out")
    shutil.copytree(tmp_path / "out/runs/tiny", tmp_path / "copy")
    assert load_experiment(tmp_path / "copy/experiment.yaml").code
    (tmp_path / "copy/helper.py").write_text("half = 0.1\n")
    with pytest.raises(KitError, match=r"code: mine\.py is not what it was when this config was stored"):
        load_experiment(tmp_path / "copy/experiment.yaml")


def test_a_ready_policy_names_code_beside_its_own_file(config, tmp_path):
    (tmp_path / "home/policies").mkdir()
    (tmp_path / "home/policies/zigzag.yaml").write_text("lr: 1e-2\nschedule: {name: 'own.py:zigzag', by: .5}\n")
    (tmp_path / "home/policies/own.py").write_text("def zigzag(clock, by): return by\n")
    experiment = load_experiment(config(), policies="zigzag")
    assert experiment.policies["zigzag"].schedule.name == "policies/own.py:zigzag"
    assert set(experiment.code) == {"policies/own.py"}
    assert set(files_of_code(experiment)) == {"policies/own.py"}
    run(experiment, tmp_path / "out")


def test_what_lies_elsewhere_runs_but_does_not_travel(config, tmp_path):
    shutil.copy(tmp_path / "home/mine.py", tmp_path / "mine.py")
    shutil.copy(tmp_path / "home/helper.py", tmp_path / "helper.py")
    experiment = load_experiment(config(policies={"u": {"lr": 1e-2, "schedule": "../mine.py:falling"}}))
    run(experiment, tmp_path / "out")
    with pytest.raises(KitError, match=r"policies.u.schedule: mine.py lies outside the config's folder"):
        files_of_code(experiment)


def test_a_missing_file_is_said_when_the_config_is_read(config):
    with pytest.raises(KitError, match=r"^policies.u.profile: mein.py:f: there is no file mein.py in "):
        load_experiment(config(policies={"u": {"lr": 1e-2, "profile": "mein.py:f"}}))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(logits, targets): return logits", r"training.loss: mine.py:f gives shape \[6, 3\] for 6 images"),
        (
            "def f(logits, targets): return logits.square().sum()",
            r"mine.py:f doubles where each image is there twice",
        ),
        ("def f(logits, targets): return 3.0", "training.loss: mine.py:f gives 3.0 for 6 images"),
        ("def f(logits, targets): return logits.mean() / 0", "training.loss: mine.py:f is not finite"),
        ("def f(logits, targets): return logits.detach().mean()", "training.loss: mine.py:f has no gradient"),
        ("def f(logits, targets): return logits.nix()", "training.loss: mine.py:f: mine.py:1: AttributeError"),
        (
            "def f(logits): return logits",
            r"training.loss: mine.py:f \(mine.py:1\): is called with",
        ),
    ],
)
def test_a_loss_is_tried_before_any_training(config, tmp_path, code, said):
    (tmp_path / "home/mine.py").write_text(code)
    path = config(policies={"u": {"lr": 1e-2}}, training={"loss": "mine.py:f"})
    with pytest.raises(KitError, match=said):
        run(load_experiment(path), tmp_path / "out")


def test_class_weights_need_the_loss_of_each_image(config, tmp_path):
    (tmp_path / "home/mine.py").write_text("def f(logits, targets): return logits.mean()")
    weights = {"loss": "mine.py:f", "class_weights": "balanced"}
    with pytest.raises(KitError, match="gives a mean; for class_weights the loss of each image"):
        run(load_experiment(config(policies={"u": {"lr": 1e-2}}, training=weights)), tmp_path / "out")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(params): return 3", "training.optimizer: mine.py:f gives int; a torch.optim.Optimizer is needed"),
        ("def f(params, x): return 3", r"training.optimizer: mine.py:f \(mine.py:1\): .*missing .*'x'"),
        ("from torch.optim import LBFGS as f", "LBFGS doesn't support per-parameter options"),
        (
            "import torch\nclass f(torch.optim.SGD):\n def step(self, closure): ...",
            "training.optimizer: mine.py:f needs a closure",
        ),
        (
            "import torch\ndef f(params): return torch.optim.SGD([v for g in params for v in g['params']], 1.0)",
            "training.optimizer: mine.py:f does not keep the parameter groups",
        ),
    ],
)
def test_an_optimizer_is_tried_before_any_training(config, tmp_path, code, said):
    (tmp_path / "home/mine.py").write_text(code)
    path = config(policies={"u": {"lr": 1e-2}}, training={"optimizer": {"name": "mine.py:f"}})
    with pytest.raises(KitError, match=said):
        run(load_experiment(path), tmp_path / "out")


def test_code_edited_after_the_config_was_read_trains_nothing(config, tmp_path):
    experiment = load_experiment(config())
    (tmp_path / "home/helper.py").write_text("half = 0.4\n")
    with pytest.raises(KitError, match=r"policies.mine.schedule: .* has changed since the config was read"):
        run(experiment, tmp_path / "out")


def test_a_module_of_no_package_is_refused(config, tmp_path, monkeypatch):
    (tmp_path / "loose_module.py").write_text("def f(clock): return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KitError, match=r"of no installed package; name it loose_module.py:f"):
        load_experiment(config(policies={"u": {"lr": 1e-2, "schedule": "loose_module:f"}}))


def test_a_stored_config_keeps_what_lies_elsewhere(config, tmp_path):
    shutil.copy(tmp_path / "home/mine.py", tmp_path / "mine.py")
    shutil.copy(tmp_path / "home/helper.py", tmp_path / "helper.py")
    run(load_experiment(config(policies={"u": {"lr": 1e-2, "schedule": "../mine.py:falling"}})), tmp_path / "out")
    stored = stored_experiment(ExperimentDir(tmp_path / "out/runs/tiny"))
    (tmp_path / "mine.py").unlink()
    assert stored.policies["u"].build().matrix([PolicyGroup(0, 2, "a"), PolicyGroup(1, 2, "b")], 4).lr.shape == (
        4,
        2,
    )


@pytest.mark.parametrize("weighted", [{"mixup": 0.2}])
def test_a_loss_of_mixed_images_weighs_classes_itself(config, tmp_path, weighted):
    training = {"loss": "mine.py:focal", "class_weights": "balanced"} | weighted
    with pytest.raises(KitError, match="a loss of your own has to weigh classes itself"):
        run(load_experiment(config(policies={"u": {"lr": 1e-2}}, training=training)), tmp_path / "out")


def test_parameters_of_a_loss_are_refused(config, tmp_path):
    (tmp_path / "home/mine.py").write_text(
        "import torch\nclass f(torch.nn.Module):\n def __init__(self):\n  super().__init__()\n"
        "  self.w = torch.nn.Parameter(torch.ones(1))\n"
        " def forward(self, logits, targets): return logits.mean(1) * self.w\n"
    )
    with pytest.raises(KitError, match=r"mine.py:f has parameters of its own, which would not learn"):
        run(
            load_experiment(config(policies={"u": {"lr": 1e-2}}, training={"loss": "mine.py:f"})), tmp_path / "out"
        )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.py:f", r"training.optimizer: mine.py:f: cannot make a step: mine.py:3: ZeroDivisionError"),
        (
            "torch.optim:SparseAdam",
            r"training.optimizer: torch.optim:SparseAdam: cannot make a step: RuntimeError",
        ),
        ("timm.optim:Adahessian", r"training.optimizer: timm.optim:Adahessian: cannot make a step: RuntimeError"),
    ],
)
def test_an_optimizer_makes_a_step_before_any_training(config, tmp_path, name, said):
    (tmp_path / "home/mine.py").write_text(
        "import torch\nclass f(torch.optim.SGD):\n def step(self, closure=None): 1 / 0\n"
    )
    path = config(policies={"u": {"lr": 1e-2}}, training={"optimizer": name})
    with pytest.raises(KitError, match=said):
        run(load_experiment(path), tmp_path / "out")


def test_the_stored_copy_is_taken_for_what_it_was_only(config, tmp_path):
    run(load_experiment(config()), tmp_path / "out")
    folder = ExperimentDir(tmp_path / "out/runs/tiny")
    (folder.path / "helper.py").write_text("half = 0.1\n")
    policy = stored_experiment(folder).policies["mine"].build()
    with pytest.raises(KitError, match="has changed since the config was read"):
        policy.matrix([PolicyGroup(0, 2, "a"), PolicyGroup(1, 2, "b")], 4)
