"""`--vary`: experiments made of one config, their names, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from support.commands import config_file, kit_here
from support.refusals import refusal_of

from kit.comparison.vary import load_varied, name_of
from kit.core.settings import Name


@pytest.fixture(scope="module")
def config(competition, tmp_path_factory):
    return config_file(competition, tmp_path_factory.mktemp("vary") / "tiny.yaml")


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        (["data.augment=[light, medium, none]"], ["tiny", "tiny-augment-medium", "tiny-augment-none"]),
        (["data.augment=[medium]"], ["tiny", "tiny-augment-medium"]),
        (["data.size=[24, 32, 0x18]"], ["tiny", "tiny-data.size-24"]),  # 32 is the base's, 0x18 is 24
        (["training.epochs=[1]", "data.size=[24]"], ["tiny", "tiny-training.epochs-1", "tiny-data.size-24"]),
        (["training.ema=[null, .99]"], ["tiny", "tiny-ema-0.99"]),
        (["policies.uniform.lr=[1e-3]"], ["tiny", "tiny-uniform.lr-0.001"]),
        (["data.augment=[[hflip, rotate]]"], ["tiny", "tiny-augment-hflip-rotate-*"]),
    ],
)  # fmt: skip
def test_each_value_is_an_experiment_and_the_configs_own_is_the_config(config, vary, names):
    made = load_varied(config, vary)
    assert len(made) == len(names)
    for each, name in zip(made, names, strict=True):
        assert each.name == name if not name.endswith("*") else each.name.startswith(name[:-1])
    assert made == load_varied(config, vary)


def test_one_key_differs_alone(config):
    base, medium, larger = load_varied(config, ["data.augment=[medium]", "data.size=[48]"], ["training.epochs=1"])
    assert medium.data == base.data.model_copy(update={"augment": "medium"})
    assert larger.data == base.data.model_copy(update={"size": 48})
    assert {each.training.epochs for each in (base, medium, larger)} == {1}


@settings(deadline=None)  # the first call looks at all sections
@given(
    st.lists(
        st.text(max_size=90) | st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none(), min_size=2
    )
)
def test_names_are_names_and_tell_values_apart(values):
    names = [name_of("tiny", "data.augment", value) for value in values]
    for name in names:
        TypeAdapter(Name).validate_python(name)
    told = {repr(value) for value in values}
    if all(isinstance(value, str) for value in values):
        assert len(set(names)) == len(told)


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (
            "data.augmnt=[light]",
            "--vary data.augmnt=[light]: {config}: data.augmnt: unknown key; did you mean augment?",
        ),
        ("data.size=[tall]", "--vary data.size=[tall]: {config}: data.size = 'tall'"),
        ("data.augment=light", "--vary data.augment=light: expected a list of values, like"),
        ("data.augment=[]", "--vary data.augment=[]: expected a list of values"),
        ("data.augment", "--vary data.augment: expected a key and a list of values"),
        ("data.augment=[light]", "--vary data.augment=[light]: {config} has this value itself"),
        ("data.augment=[light", "--vary data.augment=[light"),
        ("folds.k=[4]", "--vary folds.k: compared experiments follow one fold plan"),
        ("folds=[{k: 4}]", "--vary folds: compared experiments follow one fold plan"),
        ("competition.path=[x]", "--vary competition.path: compared experiments are of the same rows and labels"),
        ("scoring.average=[micro]", "--vary scoring.average: nothing is trained by it: python -m kit run CONFIG"),
        (
            "prediction.views=[[hflip], [d4]]",
            "--vary prediction.views: nothing is trained by it, and each value would train the same weights "
            "again: after python -m kit run CONFIG, python -m kit views EXPERIMENT",
        ),
        ("prediction.size=[48]", "--vary prediction.size: nothing is trained by it"),
        ("seeds=[[0, 1]]", "--vary seeds: all are trained with the same seeds: --seeds N"),
        ("name=[x]", "--vary name: it is where the runs are"),
    ],
)
def test_what_cannot_vary_is_refused(config, vary, expected):
    assert refusal_of(lambda: load_varied(config, [vary])).startswith(expected.format(config=config))


def test_as_it_is_typed(config, tmp_path, monkeypatch, capsys):
    words = (
        "compare",
        str(config),
        "--vary",
        "data.augment=[none, light]",
        "--folds",
        "2",
        "--set",
        "training.epochs=1",
    )
    code, out, err = kit_here(monkeypatch, capsys, *words, "--output", str(tmp_path))
    assert (code, err) == (0, "")
    assert "What differs: tiny | tiny-augment-none\n  data.augment: light | none\n" in out
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert folders == ["compare-tiny-tiny-augment-none", "tiny", "tiny-augment-none"]
