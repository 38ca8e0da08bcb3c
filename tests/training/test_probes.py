"""Probes: they change not a bit, survive a kill, and measure what a slow obvious version measures."""

import numpy as np
import pytest
import timm
import torch
from scipy.special import rel_entr
from support import stale_biases
from support.trainings import Killed, kill_at, outcome, trainer_of
from torch import nn

from kit.model.groups import depth_groups
from kit.report.measured import heat_map, top_magnitude
from kit.training.config import ProbesConfig
from kit.training.probes import MOST_VALUES, N_BINS, Probes, _evenly, _looked_at, probed_layers
from kit.training.records import Activations, Learning

ON = {"every": 2, "butterfly": [0, 0.5, 1], "images": 5, "runs": "all"}
HARD = {
    "training": {"ema": 0.9, "clip_grad": 1.0, "accumulate": 2, "epochs": 4, "batch_size": 4, "log_every": 1,
                 "checkpoint_minutes": 0},
    "model": {"drop": 0.2, "options": {"drop_path_rate": 0.2}},
}  # fmt: skip


def with_probes(probes, **training):
    return HARD | {"training": HARD["training"] | training | {"probes": probes}}


@pytest.fixture(scope="module")
def whole(competition, tmp_path_factory):
    """A trained run with probes: (trainer, outcome)."""
    trainer = trainer_of(competition, tmp_path_factory.mktemp("probed"), **with_probes(ON))
    return trainer, outcome(trainer, trainer.train())


def test_not_a_bit_is_changed(competition, tmp_path, whole):
    without = trainer_of(competition, tmp_path, **HARD)
    assert outcome(without, without.train()) == whole[1]
    assert not without.dir.activations.exists()


def test_a_killed_run_measures_the_same(competition, tmp_path, whole):
    first = trainer_of(competition, tmp_path, **with_probes(ON))
    with pytest.raises(Killed):
        first.train(on_step=kill_at(5))
    second = trainer_of(competition, tmp_path, **with_probes(ON))
    assert outcome(second, second.train()) == whole[1]
    for name in ("activations", "learning"):
        with np.load(getattr(second.dir, name)) as mine, np.load(getattr(whole[0].dir, name)) as expected:
            assert set(mine) == set(expected)
            for key in mine:
                np.testing.assert_array_equal(mine[key], expected[key])


def test_probes_that_are_turned_on_for_the_rest_of_a_run_sample_that(competition, tmp_path, whole):
    """Probes are no part of what a run is: a killed run without them may go on with them."""
    with pytest.raises(Killed):
        trainer_of(competition, tmp_path, **HARD).train(on_step=kill_at(5))
    late = trainer_of(competition, tmp_path, **with_probes(ON))
    assert outcome(late, late.train()) == whole[1]
    mine, expected = Learning.load(late.dir.learning), Learning.load(whole[0].dir.learning)
    assert mine.steps.tolist() == [step for step in expected.steps if step > 5]
    for name in ("update", "distance", "rotation", "gradient", "rate"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(expected, name)[-len(mine.steps) :])


def test_more_samples_than_the_default_change_nothing_else(competition, tmp_path, whole):
    dense = trainer_of(competition, tmp_path, **with_probes({"every": 1, "runs": "all"}))
    assert outcome(dense, dense.train()) == whole[1]
    every, second = Activations.load(dense.dir.activations), Activations.load(whole[0].dir.activations)
    chosen = np.isin(every.steps, second.steps)
    np.testing.assert_array_equal(every.counts[chosen], second.counts)
    np.testing.assert_array_equal(every.near_zero[chosen], second.near_zero)


def test_first_and_last_updates_are_sampled(whole):
    trainer, _ = whole
    total = trainer.plan.total_steps
    steps = Learning.load(trainer.dir.learning).steps.tolist()
    assert steps == sorted({*range(0, total, 2), total - 1})
    assert Activations.load(trainer.dir.activations).steps.tolist() == steps
    assert Learning.load(trainer.dir.learning).butterfly_steps.tolist() == [0, round(total / 2), total]


def test_learning_by_depth_is_what_weights_kept_at_every_step_say(competition, tmp_path):
    settings = {"every": 1, "runs": "all"}
    policies = {"uniform": {"lr": "slice(1e-4, 1e-2)"}}
    trainer = trainer_of(competition, tmp_path, policies=policies, training={"probes": settings, "epochs": 1})
    groups = depth_groups(trainer.model, "stage")
    flat = lambda: [  # noqa: E731
        torch.cat([v.detach().flatten().double() for v in group.parameters.values()]) for group in groups
    ]
    kept, gradients = [flat()], []
    trainer.optimizer.optimizer.register_step_pre_hook(
        lambda *_: gradients.append(
            [torch.cat([v.grad.flatten().double() for v in g.parameters.values()]).norm().item() for g in groups]
        )
    )
    trainer.train(on_step=lambda step: kept.append(flat()))
    learned = Learning.load(trainer.dir.learning)
    own = [group.name for group in trainer.groups]
    for step in range(len(kept) - 1):
        for place, (before, after, start) in enumerate(zip(kept[step], kept[step + 1], kept[0], strict=True)):
            assert learned.update[step, place] == pytest.approx(
                float((after - before).norm() / before.norm()), rel=1e-4
            )
            assert learned.distance[step, place] == pytest.approx(
                float((after - start).norm() / start.norm()), rel=1e-4
            )
            cosine = (after @ start / (after.norm() * start.norm())).clamp(max=1)
            angle = torch.rad2deg(torch.acos(cosine)).item()
            assert learned.rotation[step, place] == pytest.approx(angle, rel=1e-3, abs=2e-3)
            assert learned.gradient[step, place] == pytest.approx(gradients[step][place], rel=1e-4)
        head = trainer.rates.lr[step, own.index("fc")]
        assert learned.rate[step, -1] == pytest.approx(float(head / kept[step][-1].norm() ** 2), rel=1e-4)


def test_a_frozen_group_stands_still(competition, tmp_path):
    policies = {"uniform": {"lr": 1e-2, "freeze_to": -1, "train_norm": False, "groups": "stage"}}
    probes = {"every": 1, "runs": "all"}
    trainer = trainer_of(competition, tmp_path, policies=policies, training={"probes": probes, "epochs": 1})
    trainer.train()
    learned = Learning.load(trainer.dir.learning)
    for measure in (learned.update, learned.distance, learned.rotation, learned.gradient):
        assert (measure[:, :-1] == 0).all()
        assert (measure[:, -1] > 0).all()


def test_counts_are_numpys():
    values = torch.randn(4, 8, 6, 6) * torch.logspace(-6, 6, 8).view(1, 8, 1, 1)
    values[0, 0, 0, 0] = 0
    counts, moments = _looked_at(values)
    magnitude = values.abs().flatten().double().numpy()
    edges = 2.0 ** (np.arange(N_BINS + 1) / 64 - 14)
    inside, _ = np.histogram(magnitude, edges)
    expected = [(magnitude < edges[0]).sum(), *inside, (magnitude >= edges[-1]).sum()]
    moved = np.abs(np.cumsum(counts.numpy()) - np.cumsum(expected)).max()
    assert moved <= 1  # a value on an edge, where float32's logarithm may fall on either side
    assert counts.sum() == values.numel()
    flat = values.flatten().numpy().astype(np.float64)
    near = (np.abs(flat) <= 0.01 * np.sqrt((flat**2).mean())).mean()
    np.testing.assert_allclose(moments.numpy(), [flat.mean(), flat.std(), near], rtol=1e-4)


def test_an_axis_made_later_loses_no_count(whole):
    activations = Activations.load(whole[0].dir.activations)
    for layer in range(len(activations.layers)):
        top = top_magnitude(activations, layer)
        heat = heat_map(activations, layer, top, 40)
        assert heat.shape == (41, len(activations.steps))
        np.testing.assert_allclose(heat.sum(axis=0), activations.counts[:, layer].sum(axis=1))
        assert heat[-1].sum() <= 0.002 * heat.sum()
        coarse = heat_map(activations, layer, top, 20)
        np.testing.assert_allclose(coarse[:-1], heat[:-1].reshape(20, 2, -1).sum(axis=1), rtol=1e-9, atol=1e-6)


def test_of_a_large_output_all_channels_are_looked_at_alike():
    output = torch.arange(64.0).view(1, 64, 1, 1).expand(8, 64, 64, 64).to(memory_format=torch.channels_last)
    seen = _evenly(output)
    assert len(seen) <= MOST_VALUES
    shares = torch.bincount(seen.long(), minlength=64) / len(seen)
    np.testing.assert_allclose(shares.numpy(), 1 / 64, rtol=0.01)


@pytest.mark.parametrize("shape", [(8, 96, 64, 64), (16, 77, 33, 35), (4, 1000, 300)])
def test_no_axis_of_an_output_is_in_step_with_the_samples(shape):
    """Each place along an axis is met as often as any other, whatever the order in memory."""
    for axis in range(len(shape)):
        along = torch.arange(float(shape[axis])).view([-1 if each == axis else 1 for each in range(len(shape))])
        output = along.expand(shape).contiguous()
        for made in (output, output.to(memory_format=torch.channels_last)) if len(shape) == 4 else (output,):
            times = torch.bincount(_evenly(made).long(), minlength=shape[axis]).double()
            assert times.std() / times.mean() < 0.02


def test_an_output_that_is_not_a_number_is_counted_above():
    counts, _ = _looked_at(torch.tensor([0.0, 1e-9, 1.0, torch.inf, -torch.inf, torch.nan]))
    assert (counts[0], counts[-1], counts.sum()) == (2, 3, 6)
    assert counts[1 + 14 * 64] == 1  # the bin that begins with 1


class Tupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.idle, self.second = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.second(self.first(x)), "more"


def test_a_forward_pass_is_counted_layer_by_layer():
    torch.manual_seed(0)
    model, inputs = Head(), torch.randn(6, 1, 2, 2)
    probes = Probes(ProbesConfig(every=3), model, 10, seed=0)
    tupled = Tupled()
    probes.layers = {"first": tupled.first, "idle": tupled.idle, "all": tupled}
    with probes.watching(1):
        tupled(inputs.flatten(1))
    assert not probes.counts  # is not due
    with probes.watching(3), torch.autocast("cpu", torch.bfloat16):
        output = tupled(inputs.flatten(1))[0]
    assert list(probes.layers) == ["first", "all"]  # what never ran has nothing to show
    assert not tupled.first._forward_hooks
    counts, moments = probes.counts[0], probes.moments[0]
    assert counts.sum(dim=1).tolist() == [6 * 3, 6 * 2]
    assert moments.dtype == torch.float32
    assert moments[1, 0].item() == pytest.approx(output.float().mean().item(), rel=1e-6)
    expected, _ = _looked_at(output.float())
    assert torch.equal(counts[1], expected)


class Head(nn.Module):
    """Two linear layers, with what timm's models tell of themselves."""

    pretrained_cfg = {"classifier": "second"}

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3, bias=False), nn.Linear(3, 3, bias=False)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)))

    def group_matcher(self, coarse=False):
        return {"stem": r"^first", "blocks": [(r"^second", None)]}

    def get_classifier(self):
        return self.second


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_butterfly_is_the_kl_of_a_model_perturbed_by_hand(multilabel):
    torch.manual_seed(0)
    model, inputs = Head(), torch.randn(6, 1, 2, 2)
    probes = Probes(ProbesConfig(butterfly=(0,), relative=0.1), model, 10, seed=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    directions = []
    randn = torch.randn

    def noted(*shape, generator=None):
        directions.append(randn(*shape, generator=generator))
        return directions[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", noted)
        probes.measure_butterfly(0, inputs, multilabel)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def distribution(first, second):
        logits = (inputs.flatten(1) @ first.T @ second.T).detach().double().numpy()
        if multilabel:
            yes = 1 / (1 + np.exp(-logits))
            return np.stack([yes, 1 - yes], axis=2)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return shares[:, :, None]

    weights = [model.first.weight.detach(), model.second.weight.detach()]
    plain = distribution(*weights)
    for place in range(2):
        effects = []
        for noise in directions[2 * place : 2 * place + 2]:
            moved = list(weights)
            moved[place] = weights[place] + 0.1 * weights[place].norm() * noise / noise.norm()
            effects.append(rel_entr(plain, distribution(*moved)).sum(axis=(1, 2)).mean())
        assert probes.butterfly[0][place].item() == pytest.approx(np.mean(effects), rel=1e-3)


def test_the_butterfly_is_in_full_precision_whatever_the_training_is_in(competition, tmp_path):
    """Half precision would round away the small difference that it measures."""
    effects = []
    for precision in ("fp32", "bf16"):
        trainer = trainer_of(
            competition, tmp_path / precision, training={"precision": precision, "probes": ON | {"butterfly": [0]}}
        )
        trainer._measure_butterfly(0)
        effects.append(trainer.probes.butterfly[0])
    assert torch.equal(*effects)


def test_the_butterfly_leaves_modes_and_statistics(whole):
    trainer, _ = whole
    model = trainer.model.train()
    next(model.modules()).training = True
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.training = False
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    trainer.probes.measure_butterfly(99, torch.randn(4, 3, 32, 32), False)
    assert not norm.training
    assert model.training
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4"]),
        ("convnext_atto", ["stem.0", "stages.0", "stages.1", "stages.2", "stages.3"]),
        ("vit_tiny_patch16_224", ["patch_embed.proj", *(f"blocks.{block}" for block in range(12))]),
        ("regnety_002", ["stem.conv", "s1", "s2", "s3", "s4"]),
        ("tf_efficientnet_lite0", ["conv_stem", *(f"blocks.{stage}" for stage in (0, 1, 2, 4, 6))]),
        ("mobilenetv3_small_100", ["conv_stem", *(f"blocks.{stage}" for stage in (0, 1, 3, 5))]),
        (
            "densenet121",
            [f"features.{part}" for part in ("conv0", "denseblock1", "denseblock2", "denseblock3", "norm5")],
        ),
        ("swin_tiny_patch4_window7_224", ["patch_embed.proj", *(f"layers.{stage}" for stage in range(4))]),
        # lists of modules, which are never called themselves; no feature_info; activations as ends of stages
        (
            "mvitv2_tiny",
            ["patch_embed.proj", *(f"stages.{stage}.blocks.{last}" for stage, last in enumerate((0, 1, 4, 1)))],
        ),
        ("twins_pcpvt_small", ["patch_embeds.0.proj", "blocks.0.2", "blocks.1.3", "blocks.2.5", "norm"]),
        ("xception41", ["stem.0.conv", *(f"blocks.{each}.stack.act3" for each in (0, 1, 2, 11)), "blocks.12"]),
        ("resnet32ts", ["stem.conv1.conv", "stages.0", "stages.1", "stages.2", "final_conv"]),
    ],
)  # fmt: skip
def test_the_layers_of_a_network_are_its_first_convolution_and_its_stages(name, expected):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert list(probed_layers(model, depth_groups(model, "stage"))) == expected


@pytest.mark.parametrize("name", ["tiny_vit_5m_224", "efficientvit_m0"])
def test_the_butterfly_sees_attention_biases_that_move(name):
    """timm keeps them while a model predicts; the truth here is a model that computes them anew each time."""

    def effects(keep) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            keep(patch)
            model = stale_biases.built(name)
            with torch.no_grad():
                for value in stale_biases.biases(model):
                    value.copy_(torch.linspace(-9, 9, value.numel()).view(value.shape))
            probes = Probes(ProbesConfig(relative=0.5), model, total_steps=4, seed=0)
            probes._parameters = [stale_biases.biases(model)]  # nothing else moves
            probes.measure_butterfly(0, torch.linspace(-1, 1, 4 * 3072).view(4, 3, 32, 32), multilabel=False)
            return probes.butterfly[0]

    measured = effects(stale_biases.keep_as_timm_1_0_26)
    assert (measured > 1e-6).all()
    torch.testing.assert_close(measured, effects(stale_biases.keep_none))
