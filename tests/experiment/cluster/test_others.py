"""What else a cluster carries out: predictions, the range test, comparisons; and what goes wrong on a node."""

import json

import numpy as np
import pytest
import torch
from support.clusters import ray_nodes
from support.refusals import refusal_of
from support.studies import left_by, study

import kit.experiment.cluster.cluster as module
from kit.comparison.compare import compare
from kit.core.owner import Owner
from kit.experiment.config import load_experiment
from kit.experiment.find_lr import RangeSearch, find_lr
from kit.experiment.options import RunOptions
from kit.experiment.predict import predict_test
from kit.experiment.run import run

pytest.importorskip("ray", reason="Ray has no wheel here")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As on the nodes, so that bits are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    caches = [tmp_path_factory.mktemp("cache") for _ in range(2)]
    with ray_nodes([{"env_vars": {"KIT_CACHE": str(cache)}} for cache in caches]) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def address(nodes, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)


@pytest.fixture
def unshared(monkeypatch):
    """Each node is another machine, which does not see the folder of the command."""
    probe = module._probe
    monkeypatch.setattr(module, "_probe", lambda output: probe(output) | {"secret": "x", "machine": "another"})


@pytest.fixture(scope="module")
def trained(competition, tmp_path_factory):
    """Three runs of one policy."""
    folder = tmp_path_factory.mktemp("trained")
    run(one_policy(competition), RunOptions(folder, jobs=1, threads=1))
    return folder


def one_policy(competition, **sections):
    config = study(competition, seeds=[0], **sections)
    return config.model_copy(update={"policies": {"uniform": config.policies["uniform"]}})


@pytest.mark.slow
def test_models_predict_as_they_do_here(competition, trained, tmp_path, unshared):
    config, lines = one_policy(competition), []
    sources = [trained / "runs"]
    here = predict_test(config, sources, tmp_path / "here.csv", tmp_path)
    options = RunOptions(tmp_path, on="auto")
    there = predict_test(config, sources, tmp_path / "there.csv", options, say=lines.append)
    assert (there.models, there.of, there.late) == (here.models, here.of, here.late) == (3, 3, [])
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert any("2 at a time, each with 1 thread" in line for line in lines), lines


@pytest.mark.slow
def test_curves_of_the_range_test_are_those_of_here(competition, tmp_path):
    config = one_policy(competition, policies={"uniform": {"lr": 1e-2, "groups": "coarse"}})
    search = RangeSearch(1e-4, 1.0, 30, by_depth=True)
    here = find_lr(config, search, tmp_path)
    there = find_lr(config, search, RunOptions(tmp_path, on="auto"))
    assert list(there.tests) == list(here.tests)
    for name, test in here.tests.items():
        np.testing.assert_array_equal(there.tests[name].losses, test.losses)
        np.testing.assert_array_equal(there.tests[name].rates, test.rates)


@pytest.mark.slow
def test_a_comparison_with_tuning_on_held_out_folds(competition, tmp_path, unshared):
    """Trials see nothing of a fold and lie in folders of their own."""
    tuned = {"tune": {"rates": [3e-3, 1e-2], "folds": "nested"}}
    config = study(competition, seeds=[0], compare=tuned, policies={"slow": {"lr": 1e-3, "groups": "stage"}})
    compare(config, RunOptions(tmp_path / "here", jobs=1, threads=1))
    compare(config, RunOptions(tmp_path / "there", on="auto"))
    here, there = (left_by(tmp_path / name / "runs/study") for name in ("here", "there"))
    assert there.keys() == here.keys()
    assert any(name.startswith("tuning/fold") for name in here)
    summed = {"comparison.json", "manifest.json"}  # the one holds seconds, the other its digest
    assert [name for name in here if here[name] != there[name] and name not in summed] == []
    compared = [json.loads(each["comparison.json"]) | {"seconds": 0.0} for each in (here, there)]
    assert compared[0] == compared[1]


@pytest.mark.slow
def test_a_policy_that_diverges_is_compared_as_diverged(competition, tmp_path, unshared):
    config = study(competition, seeds=[0], policies={"slow": {"lr": 1e30, "groups": "stage"}})
    content = compare(config, RunOptions(tmp_path, on="auto")).content
    assert [each.policy for each in content.views[0].diverged] == ["slow"]
    assert not compare(config, RunOptions(tmp_path, on="auto")).trained, "it is not tried again"


FULL_DISK = """
import os, resource
if os.environ.get("NODE") == os.environ.get("FULL", "1"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

def loss(logits, targets):
    return (logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]).mean()
"""


@pytest.mark.slow
def test_a_full_disk_on_one_node_is_told_and_the_same_command_goes_on(competition, tmp_path, unshared):
    (tmp_path / "mine.py").write_text(FULL_DISK)
    content = one_policy(competition).model_dump(mode="json", exclude_defaults=True)
    content["training"]["loss"] = "mine.py:loss"
    (tmp_path / "my.yaml").write_text(json.dumps(content))
    config, out = load_experiment(tmp_path / "my.yaml"), tmp_path / "out"
    message = refusal_of(lambda: run(config, RunOptions(out, on="auto", jobs=2)))
    assert message.startswith(f"{Owner.mine().host}: ")
    assert "could not be written" in message
    left = list(out.glob("runs/study/uniform/seed0/fold*/weights.safetensors"))
    assert len(left) < 3, "the runs of the other node alone"
