"""The range test: fastai's suggestions, a rise that keeps the profile, a model left as it was."""

import numpy as np
import pytest
import torch
from support.colours import experiment_content
from support.refusals import refusal_of
from support.trainings import trainer_of

from kit.core.errors import KitError
from kit.experiment.train_run import trainer_of as trainer_of_run
from kit.lr import Clock
from kit.model.build import weights_digest
from kit.training import compiled
from kit.training.range_test import SUGGESTIONS, RangeTestResult, Sweep, range_test


def curve(seed):
    """Flat, a fall, a valley, a steep rise; a little noise."""
    generator, n = np.random.default_rng(seed), 80 + seed
    x = np.linspace(0, 1, n)
    rise = (x > 0.8) * (x - 0.8) ** 2 * 90
    return np.geomspace(1e-7, 10, n), 2.3 - 1.5 / (1 + np.exp(-(x - 0.55) * 15)) + rise + generator.normal(
        0, 0.01, n
    )


# valley, slide, minimum, steep: measured with fastai 2.8.12 on the curves above.
FASTAI = {
    0: [0.0007048574036451903, 0.0005582586268862694, 0.023974349678010785, 0.0008899530352885224],
    1: [0.0007943282347242822, 0.0006309573444801936, 0.019952623149688826, 0.001584893192461114],
    2: [0.0007109709432312431, 3.030271082866393e-06, 0.026287730055894482, 0.004385057662800763],
    3: [0.0007988017808015701, 0.0007988017808015701, 0.01753486550082959, 0.003074715081321838],
    4: [0.0011173591019485102, 0.0005741642455935716, 0.022985067481815197, 0.00423161379345089],
    5: [0.0008030857221391513, 0.000644946677103762, 0.024040991835099692, 0.002404099183509969],
}


@pytest.mark.parametrize("seed", FASTAI)
def test_suggestions_are_fastais(seed):
    rates, losses = curve(seed)
    assert list(SUGGESTIONS) == ["valley", "slide", "minimum", "steep"]
    found = [suggest(rates, losses) for suggest in SUGGESTIONS.values()]
    assert found == pytest.approx(FASTAI[seed], rel=1e-9)


def test_fastais_own_functions_agree_where_it_is_installed():
    schedule = pytest.importorskip(
        "fastai.callback.schedule", reason="fastai is not installed: its numbers stand above"
    )
    for seed in range(20):
        rates, losses = curve(seed)
        for name, suggest in SUGGESTIONS.items():
            theirs = getattr(schedule, name)(torch.tensor(rates), torch.tensor(losses), len(rates))[0]
            assert suggest(rates, losses) == pytest.approx(theirs, rel=1e-9), name


def test_a_loss_that_only_rises_has_its_valley_at_the_start_as_in_fastai():
    rates = np.geomspace(1e-6, 1, 30)
    assert SUGGESTIONS["valley"](rates, np.linspace(1, 2, 30)) == rates[0]
    risen = RangeTestResult(rates, np.zeros(30), np.linspace(1, 2, 30), True, 30)
    assert not risen.fell
    assert RangeTestResult(rates, np.zeros(30), np.linspace(2, 1, 30), False, 30).fell


def test_suggestions_pass_over_the_first_tenth_and_the_last_five():
    rates, losses = curve(1)
    pads = np.full(10, 1e-9), np.full(5, 9.0)
    test = RangeTestResult(
        rates=np.concatenate([pads[0], rates, pads[1]]),
        losses=np.zeros(0),
        smoothed=np.concatenate([np.full(10, -5.0), losses, np.full(5, -9.0)]),
        diverged=True,
        planned=100,
    )
    assert list(test.suggestions().values()) == pytest.approx(FASTAI[1], rel=1e-9)


def sweep(groups=4, count=30, first=1e-4, last=10.0):
    shape = np.geomspace(0.1, 1, groups)
    return Sweep(first, last, count, shape, np.zeros(groups), np.zeros(groups, dtype=bool))


def test_a_sweep_raises_all_groups_together():
    rise = sweep(4, 20, 1e-5, 1e-1)
    rates = np.array([rise.rates(Clock(step, 40), [None] * 4).lr for step in range(20)])
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10 ** (4 / 20), rtol=1e-9)
    np.testing.assert_allclose(rates[:, 0] / rates[:, 3], 0.1, rtol=1e-9)
    assert rates[0, 3] == 1e-5


def swept(competition, path, rise, **training):
    """A trainer of the miniature under a sweep."""
    content = {"training": {"epochs": 12, **training}}
    plain = trainer_of(competition, path, **content)
    from kit.core.paths import OutputDirs
    from kit.core.runs import ExperimentDir
    from kit.experiment.config import validate
    from kit.experiment.prepare import prepare, run_keys
    from kit.training.device import make_accelerator

    folder = ExperimentDir(path / "runs/tiny")
    experiment = validate(experiment_content(competition, **content), "test")
    loaded, data = prepare(experiment, folder, OutputDirs(path), shown=False)
    return trainer_of_run(
        run_keys(experiment)[0], loaded, data, plain.dir, make_accelerator(experiment.training), rise
    )


def test_the_model_and_the_optimizer_are_left_as_they_were(competition, tmp_path):
    trainer = swept(competition, tmp_path, None)
    rise = sweep(len(trainer.groups))
    trainer = swept(competition, tmp_path, rise)
    before = weights_digest(trainer.model)
    test = range_test(trainer, rise)
    assert weights_digest(trainer.model) == before
    assert trainer.optimizer.state_dict()["state"] == {}
    assert all(value.requires_grad for value in trainer.model.parameters())
    assert len(test.rates) == len(test.losses) == len(test.smoothed) <= 30
    assert test.losses[0] == pytest.approx(np.log(3), rel=0.3)  # three classes, nothing learned
    average = 0.0
    for step, loss in enumerate(test.losses):  # fastai's smoothing, written out
        average = 0.98 * average + 0.02 * loss
        assert test.smoothed[step] == pytest.approx(average / (1 - 0.98 ** (step + 1)), rel=1e-9)
    np.testing.assert_allclose(test.rates, 1e-4 * 1e5 ** (np.arange(len(test.rates)) / 30), rtol=1e-9)


def test_it_stops_where_the_loss_diverges(competition, tmp_path):
    groups = len(swept(competition, tmp_path, None).groups)
    rise = sweep(groups, 36, 1e-3, 1e12)
    test = range_test(swept(competition, tmp_path, rise, optimizer={"name": "sgd"}), rise)
    assert test.diverged
    assert len(test.rates) < 36
    assert np.isfinite(test.losses).all()
    assert (test.smoothed[:-1] <= 4 * np.minimum.accumulate(test.smoothed)[:-1]).all()


def test_a_run_that_ends_too_early_says_what_to_do():
    few = RangeTestResult(np.ones(12), np.ones(12), np.ones(12), True, 100)
    with pytest.raises(
        KitError, match=r"diverged after 12 updates, too few to say anything; start lower \(--start\)"
    ):
        few.suggestions()


def test_an_error_of_the_compiler_is_told_in_a_line(competition, tmp_path, monkeypatch):
    def fails(graph, inputs):
        raise RuntimeError("no such instruction")

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", fails)
    monkeypatch.setattr(compiled, "_need_compiler", lambda on_gpu: None)
    rise = sweep(len(swept(competition, tmp_path, None).groups))
    trainer = swept(competition, tmp_path, rise, compile=True)
    message = refusal_of(lambda: range_test(trainer, rise))
    assert message.startswith("training.compile: the model cannot be compiled (")
    assert "no such instruction" in message
