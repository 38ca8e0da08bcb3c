"""Compiled models: the same numbers by the same names, whatever is frozen; predictions are as without."""

import copy

import pytest
import timm
import torch
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import CppCompileError

from kit.core import stopping
from kit.core.errors import KitError
from kit.core.stopping import Stopped
from kit.model.groups import depth_groups
from kit.training import compiled
from kit.training.compiled import Compiled, need_compilable, repeated_blocks, telling_what_fails
from kit.training.config import TrainingConfig

DROPS = {"drop_rate": 0.2, "drop_path_rate": 0.2}
INPUTS = {"test_resnet": (8, 3, 32, 32), "test_vit": (4, 3, 160, 160)}


@pytest.fixture
def eagerly(monkeypatch):
    """The compiler's front alone, whose code computes what torch does without: the same bits."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(compiled, "_need_compiler", lambda on_gpu: None)


def pair_of(name, **options):
    """A model and its compiled copy, with its depth groups each."""
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3, **DROPS).train()
    other = copy.deepcopy(plain)
    made = Compiled(other, **options)
    return plain, other, made


def update(model, step, inputs):
    torch.manual_seed(step)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    outputs = model(inputs)
    outputs.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return outputs.detach()


def same(one, other):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet18", {"BasicBlock": 8}),
        ("vit_tiny_patch16_224", {"Block": 12}),
        ("convnext_atto", {"ConvNeXtBlock": 12}),
        ("efficientnet_lite0", {"InvertedResidual": 15}),
        ("levit_128s", {"LevitBlock": 9}),
        ("regnetx_002", {}),
    ],
)
def test_the_blocks_that_a_network_repeats(name, kinds):
    found = [type(block).__name__ for block in repeated_blocks(timm.create_model(name))]
    assert {kind: found.count(kind) for kind in found} == kinds


@pytest.mark.parametrize(("name", "graphs"), [("test_vit", False), ("test_resnet", True)])
def test_learning_is_the_same_frozen_and_thawed(eagerly, name, graphs):
    plain, other, made = pair_of(name, graphs=graphs)
    assert list(other.state_dict()) == list(plain.state_dict())
    inputs = torch.randn(INPUTS[name], generator=torch.Generator().manual_seed(1))
    switches = [[group.freezer() for group in depth_groups(model)] for model in (plain, other)]
    told = []
    for step, frozen in enumerate([False, False, True, True, False]):
        for each in switches:
            for place, switch in enumerate(each[:-1]):
                switch.set(frozen, True, train_norm=bool(place % 2))
        assert torch.equal(update(plain, step, inputs), update(other, step, inputs))
        told.append(bool(made.news(step)))
    assert same(plain, other)
    assert told == [True, False, True, False, False]  # what was compiled serves again
    assert Compiled(copy.deepcopy(plain)).notice() == ""  # this process has compiled


def test_that_compiling_comes_first_is_said_once(eagerly, monkeypatch):
    monkeypatch.setattr(compiled, "_count", lambda: 0)
    assert pair_of("test_resnet")[2].notice().startswith("training.compile: the model is compiled in its first")


def test_predictions_and_copies_compute_as_without(eagerly, monkeypatch):
    plain, other, made = pair_of("test_resnet")
    average = copy.deepcopy(other)
    assert average.layer1[0].forward.__self__ is average.layer1[0]  # not the one it was copied from
    monkeypatch.setattr(compiled, "_code_of", lambda *_, **__: pytest.fail("compiled"))
    inputs = torch.randn(3, 3, 32, 32)
    for model in (other.eval(), average.eval()):
        assert torch.equal(model(inputs), plain.eval()(inputs))
    with torch.no_grad():
        assert torch.equal(other.train()(inputs).isfinite().all(), torch.tensor(True))
    assert made.news(1) == ""


def test_a_killed_run_ends_with_the_same_bits_as_one_that_is_not_compiled(competition, tmp_path, eagerly):
    training = {"ema": 0.9, "accumulate": 2, "batch_size": 4, "checkpoint_minutes": 0, "log_every": 1}
    settings = {"model": {"drop": 0.2}, "training": training | {"probes": {"every": 2, "runs": "all"}}}
    without = trainer_of(competition, tmp_path / "without", **settings)
    expected = outcome(without, without.train())
    settings["training"] |= {"compile": True}
    first = trainer_of(competition, tmp_path / "with", **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(3))
    second = trainer_of(competition, tmp_path / "with", **settings)
    lines = []
    second.say = lines.append
    assert outcome(second, second.train()) == expected
    assert len(second.compiled.blocks) == 3
    assert all("graphs compiled by update" in line for line in lines)


def test_errors_of_the_compiler_are_told_in_a_line(eagerly, monkeypatch):
    def fails(graph, inputs):
        raise RuntimeError("no such\n  instruction")

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", fails)
    _, other, made = pair_of("test_resnet")
    with pytest.raises(KitError) as told, telling_what_fails(made):
        other(torch.randn(2, 3, 32, 32))
    assert str(told.value).startswith("training.compile: the model cannot be compiled (backend='fails' raised: ")
    assert "no such instruction" in str(told.value)
    assert "no such instruction" in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="of another kind"), telling_what_fails(made):
        raise ValueError("of another kind")
    with pytest.raises(TorchDynamoException), telling_what_fails(None):  # the user's own use of a compiler
        other(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "a.cpp: In function main\na.cpp:1:10: fatal error: x.h: No such file\nmore",
            "a.cpp:1:10: fatal error: x.h: No such file",
        ),
        ("no space left", "no space left"),
        ("", "the C++ compiler ended without a word; it may have been killed, as when memory runs out"),
    ],
)
def test_of_a_cpp_compiler_the_error_is_told_and_not_its_command(said, told):
    error = CppCompileError(["g++", "a.cpp", *["-D_FLAG"] * 50], said)
    with pytest.raises(KitError) as raised, telling_what_fails(pair_of("test_resnet")[2]):
        raise error
    assert str(raised.value) == f"training.compile: the model cannot be compiled ({told}); leave compile out"


def test_a_stop_that_ended_the_cpp_compiler_is_a_stop(monkeypatch):
    monkeypatch.setattr(stopping._wishes, "code", 130)
    made = pair_of("test_resnet")[2]
    with (
        pytest.raises(Stopped, match=r"^stopped while the model was compiled; ") as raised,
        telling_what_fails(made),
    ):
        raise CppCompileError(["g++"], "")
    assert raised.value.code == 130


def test_without_a_compiler_it_is_refused():
    from torch._inductor import config

    model, training = timm.create_model("test_resnet"), TrainingConfig(compile=True, device="cpu")
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        line = refusal_of(need_compilable, model, training, 1)
    assert line.startswith("training.compile: compiling for a CPU needs a C++ compiler, and there is none; ")


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"compile": "graphs", "accumulate": 2}, "leave accumulate out"),
        ({"compile": "graphs", "probes": {"every": 2}}, "leave probes out"),
        ({"compile": True, "sync_batch_norm": True}, "compile and sync_batch_norm do not go together"),
        ({"compile": "often"}, "compile"),
    ],
)
def test_what_does_not_go_with_it(training, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**training)


def test_graphs_are_for_one_process():
    line = refusal_of(need_compilable, timm.create_model("test_resnet"), TrainingConfig(compile="graphs"), 2)
    assert line == "training.compile: graphs is for one process; take compile: true where several train together"


def test_a_python_that_torch_cannot_compile_is_told(monkeypatch):
    def refuse(function):
        raise RuntimeError("torch.compile is not supported on Python 3.99")

    monkeypatch.setattr(torch, "compile", refuse)
    model, training = timm.create_model("test_resnet"), TrainingConfig(compile=True, device="cpu")
    line = refusal_of(need_compilable, model, training, 1)
    assert line == "training.compile: torch.compile is not supported on Python 3.99; leave compile out"


def test_probes_look_between_blocks_alone(eagerly):
    training = TrainingConfig(compile=True, probes={"every": 2}, device="cpu")
    need_compilable(timm.create_model("test_vit"), training, 1)
    assert "repeats no blocks" in refusal_of(need_compilable, timm.create_model("regnetx_002"), training, 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [True, "graphs"])
def test_compiled_for_this_cpu_it_learns_the_same_up_to_rounding(competition, tmp_path, monkeypatch, mode):
    """Random numbers, too, are those of the loop without it; and a killed run ends with the same bits."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    settings = {"model": {"drop": 0.2}, "training": {"checkpoint_minutes": 0, "log_every": 1, "epochs": 3}}
    without = trainer_of(competition, tmp_path / "without", **settings)
    plain = without.train()
    settings["training"] |= {"compile": mode}
    whole = trainer_of(competition, tmp_path / "whole", **settings)
    expected = whole.train()
    torch.testing.assert_close(
        torch.from_numpy(expected.probabilities), torch.from_numpy(plain.probabilities), rtol=1e-3, atol=1e-4
    )
    first = trainer_of(competition, tmp_path / "killed", **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(3))
    torch._dynamo.reset()  # as in a process that begins
    second = trainer_of(competition, tmp_path / "killed", **settings)
    assert outcome(second, second.train()) == outcome(whole, expected)


@pytest.mark.parametrize("same_bits", [True, False])
def test_where_the_same_bits_are_wanted_nothing_is_chosen_by_what_is_faster(monkeypatch, same_bits):
    """By default the compiler times whether padded matrices are faster on a GPU, and others add up otherwise."""
    asked = []
    monkeypatch.setattr(compiled, "_codes", {})
    monkeypatch.setattr(torch, "compile", lambda code, options, **named: asked.append(options))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: same_bits)
    compiled._code_of(torch.nn.Linear, "inductor")
    assert asked[0].get("deterministic", False) is same_bits
    assert set(asked[0]) <= set(torch._inductor.list_options())


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [True, "graphs"])
def test_on_a_gpu_it_learns_the_same_up_to_rounding_and_repeats_its_bits(competition, tmp_path, mode):
    settings = {"model": {"drop": 0.2}, "training": {"device": "auto", "precision": "fp32", "epochs": 3}}
    plain = trainer_of(competition, tmp_path / "without", **settings).train()
    settings["training"] |= {"compile": mode}
    first, second = (trainer_of(competition, tmp_path / name, **settings) for name in ("first", "second"))
    trained = first.train()
    torch.testing.assert_close(
        torch.from_numpy(trained.probabilities), torch.from_numpy(plain.probabilities), rtol=1e-2, atol=1e-3
    )
    assert outcome(first, trained) == outcome(second, second.train())
