"""From YAML to an experiment and back: defaults, overrides, policies, errors, the fingerprint."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.colours import experiment_content

from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.runs import ExperimentDir
from kit.core.settings import FrozenOptions, fingerprint
from kit.data.config import DataConfig
from kit.experiment.config import ExperimentConfig, load_experiment, validate
from kit.experiment.fingerprint import config_digest, stored_experiment
from kit.lr.profiles import FreezeOut
from kit.lr.schedules import Constant, Cosine, OneCycle

CONFIGS = Path(__file__).parents[2] / "configs"
POLICIES = list((CONFIGS / "policies").glob("*.yaml"))
MINIMAL = "name: tiny\ncompetition: {path: here}\npolicies: {flat: {lr: 1e-2}}\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No policy files but those that a test writes."""
    monkeypatch.chdir(tmp_path)


def load(text: str = MINIMAL, overrides=(), policies=()) -> ExperimentConfig:
    Path("config.yaml").write_text(text, encoding="utf-8")
    return load_experiment("config.yaml", overrides, policies)


def refusal(text: str = MINIMAL, overrides=(), policies=()) -> str:
    with pytest.raises(KitError) as raised:
        load(text, overrides, policies)
    return str(raised.value)


def described(**sections) -> ExperimentConfig:
    return validate(experiment_content(Path("here"), **sections), "config.yaml")


def faults(**sections) -> list[str]:
    """The lines of the error, without the file they all begin with."""
    with pytest.raises(KitError) as raised:
        described(**sections)
    lines = str(raised.value).splitlines()
    assert all(line.startswith("config.yaml: ") for line in lines)
    return [line.removeprefix("config.yaml: ") for line in lines]


def test_what_is_stated_of_heads_is_read_again():
    """A head's name is its kind's default, without which it could not be read."""
    stated = {"heads": {"near": {"name": "knn"}, "ridge": {}, "strict": {"name": "svm", "C": [0.1]}}}
    content = experiment_content(Path("here"), features=stated)
    content.pop("policies")
    made = validate(content, "config.yaml")
    for stated_only in (True, False):
        Path("again.yaml").write_text(made.to_yaml(stated_only))
        assert load_experiment("again.yaml") == made


def test_defaults():
    experiment = load()
    assert experiment.name == "tiny"
    assert experiment.seeds == (0,)
    assert (experiment.folds.k, experiment.folds.chosen) == (5, (0, 1, 2, 3, 4))
    assert (experiment.data.size, experiment.data.augment, experiment.data.cache) == (224, "light", "auto")
    assert (experiment.model.name, experiment.model.weights) == ("resnet18", "none")
    assert (experiment.training.epochs, experiment.training.batch_size) == (5, 64)
    assert experiment.scoring.title == "macro F1"
    assert experiment.policies["flat"].schedule == OneCycle()


def test_experiment_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load().training.epochs = 7


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.epochs=3", "training", "epochs", 3),
        (" training.epochs = 3", "training", "epochs", 3),
        ("training.epochs=1e1", "training", "epochs", 10),
        ("training.clip_grad=null", "training", "clip_grad", None),
        ("training.clip_grad=", "training", "clip_grad", None),
        ("training.deterministic=false", "training", "deterministic", False),
        ("training.class_weights={red: 2, blue: 1e-1}", "training", "class_weights", {"red": 2.0, "blue": 0.1}),
        ("data.mean=[0.5, 0.4, 3e-1]", "data", "mean", (0.5, 0.4, 0.3)),
        ("data.augment=[{HorizontalFlip: {p: 0.5}}]", "data", "augment", [{"HorizontalFlip": {"p": 0.5}}]),
        ("data.cache=true", "data", "cache", True),
        ("folds.run=[0, 2]", "folds", "run", (0, 2)),
        ("competition.path=a=b", "competition", "path", "a=b"),
    ],
)
def test_override(override, section, key, value):
    changed = load(overrides=[override])
    assert getattr(getattr(changed, section), key) == value
    assert type(getattr(getattr(changed, section), key)) is type(value)


def test_overrides_reach_into_nested_sections_and_leave_the_rest():
    text = MINIMAL + "training: {batch_size: 8, optimizer: {name: sgd, options: {nesterov: true}}}\n"
    training = load(text, ["training.optimizer.weight_decay=0.1", "training.optimizer.options.eps=1e-5"]).training
    assert training.batch_size == 8
    assert training.optimizer.model_dump() == {
        "name": "sgd",
        "weight_decay": 0.1,
        "options": {"nesterov": True, "eps": 1e-5},
    }


def test_overrides_change_a_policy_and_the_seeds():
    experiment = load(overrides=["policies.flat.lr=slice(1e-6, 1e-2)", "seeds=[3, 1]"])
    assert experiment.policies["flat"].lr == "slice(1e-06, 0.01)"
    assert experiment.seeds == (3, 1)


def test_last_override_of_a_key_counts():
    assert load(overrides=["training.epochs=3", "training.epochs=4"]).training.epochs == 4


@pytest.mark.parametrize("override", ["training.epochs", "=3", ""])
def test_override_without_key_or_value_is_refused(override):
    expected = f"--set {override}: expected a key and a value, like --set training.epochs=3"
    assert refusal(overrides=[override]) == expected


def test_override_below_a_value_is_refused():
    assert refusal(overrides=["name.first=3"]) == "--set name.first=3: name is not a section"


def test_override_with_an_unknown_key_or_a_bad_value_is_refused_like_the_file():
    assert refusal(overrides=["training.epoch=3"]) == (
        "config.yaml: training.epoch: unknown key; did you mean epochs?"
    )
    assert refusal(overrides=["training.epochs=x"]).startswith("config.yaml: training.epochs = 'x': ")
    assert refusal(overrides=["seeds=[1"]).startswith("--set seeds=[1")


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-2", 0.01), ("1E-2", 0.01), ("+1e2", 100.0), ("1.5e-3", 0.0015), (".5e1", 5.0), ("1.e3", 1000.0)],
)
def test_scientific_notation_is_a_number(written, number):
    options = load(MINIMAL + f"model: {{options: {{x: {written}}}}}\n").model.options
    assert options == {"x": number}
    assert isinstance(options["x"], float)


def test_text_that_only_looks_like_a_number_stays_text():
    options = load(MINIMAL + "model: {options: {a: e5, b: 1e, c: '1e5', d: 1e5x}}\n").model.options
    assert options == {"a": "e5", "b": "1e", "c": "1e5", "d": "1e5x"}


def test_repeated_key_is_refused_with_its_line():
    assert refusal(MINIMAL + "name: other\n") == "config.yaml:4: not valid YAML: the key 'name' stands there twice"
    nested = MINIMAL + "training:\n  epochs: 3\n  batch_size: 8\n  epochs: 4\n"
    assert refusal(nested) == "config.yaml:7: not valid YAML: the key 'epochs' stands there twice"


def test_anchors_and_merges_are_yaml():
    text = MINIMAL.replace(
        "{flat: {lr: 1e-2}}", "{one: &one {lr: 1e-2, groups: stage}, two: {<<: *one, lr: 1e-3}}"
    )
    policies = load(text).policies
    assert (policies["one"].lr, policies["two"].lr, policies["two"].groups) == (0.01, 0.001, "stage")


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "\ttraining: {}\n",
        MINIMAL + "training: {epochs: 3\n",
        MINIMAL + "seeds: [1, 2\n",
        MINIMAL + "training: \x01\n",
        MINIMAL.replace("name: tiny", "name: {{ name }}"),
        MINIMAL + "? [1, 2]\n: 3\n",
        MINIMAL + "training: !!python/object/apply:os.getcwd []\n",
        MINIMAL + "training: *nothing\n",
    ],
)
def test_invalid_yaml_is_one_line_with_the_file(text):
    message = refusal(text)
    assert message.startswith("config.yaml")
    assert "not valid YAML" in message
    assert "\n" not in message


def test_file_of_another_encoding_is_one_line_with_the_file():
    Path("config.yaml").write_bytes(MINIMAL.encode() + "# Größe\n".encode("latin-1"))
    with pytest.raises(KitError, match=r"^config\.yaml.*UTF-8"):
        load_experiment("config.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n", "digits\n"])
def test_config_is_a_mapping(text):
    assert refusal(text) == "config.yaml: a config is a mapping of sections, like `name: digits`"


def test_missing_file_names_the_nearest_or_all_beside_where_it_should_be():
    Path("digits.yaml").touch()
    with pytest.raises(KitError) as raised:
        load_experiment("digit.yaml")
    assert str(raised.value) == "digit.yaml does not exist; did you mean digits.yaml?"
    with pytest.raises(KitError, match=r"^mine\.yaml does not exist; in that folder: digits\.yaml$"):
        load_experiment("mine.yaml")
    with pytest.raises(KitError, match=r"^nowhere/digits\.yaml does not exist$"):
        load_experiment("nowhere/digits.yaml")


def write_policy(name: str, lr: str, folder: str = "policies") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, f"{name}.yaml").write_text(f"lr: {lr}\n")


def without_policies(stated: str) -> str:
    return MINIMAL.replace("{flat: {lr: 1e-2}}", stated)


@pytest.mark.parametrize("folder", ["policies", "configs/policies"])
def test_policy_by_name_is_read_from_its_file(folder):
    write_policy("slow", "1e-4", folder)
    policies = load(without_policies("slow")).policies
    assert {name: policy.lr for name, policy in policies.items()} == {"slow": 0.0001}


def test_policy_beside_the_config_comes_before_the_kit_s():
    write_policy("slow", "1e-4", "policies")
    write_policy("slow", "1", "configs/policies")
    assert load(without_policies("slow")).policies["slow"].lr == 0.0001


def test_policies_by_list_keep_its_order():
    write_policy("slow", "1e-4")
    write_policy("fast", "1e-1")
    policies = load(without_policies("[slow, fast]")).policies
    assert [(name, policy.lr) for name, policy in policies.items()] == [("slow", 0.0001), ("fast", 0.1)]


def test_policies_inline_and_by_name_mix():
    write_policy("slow", "1e-4")
    policies = load(without_policies("{mine: {lr: slice(1e-2), groups: coarse}, slow: }")).policies
    assert [(name, policy.lr) for name, policy in policies.items()] == [("mine", "slice(0.01)"), ("slow", 0.0001)]


def test_chosen_policies_replace_those_of_the_file():
    write_policy("slow", "1e-4")
    write_policy("fast", "1e-1")
    assert list(load(without_policies("slow"), policies=["fast"]).policies) == ["fast"]
    assert list(load(without_policies("{mine: {lr: 1}, slow: }"), policies=["mine", "fast"]).policies) == [
        "mine",
        "fast",
    ]
    assert list(load(MINIMAL.replace("policies:", "# "), policies=["fast", "fast"]).policies) == ["fast"]


def test_unknown_policy_suggests_the_closest():
    write_policy("uniform", "1e-2")
    assert refusal(without_policies("unifrom")) == "policies: there is no policy 'unifrom'; did you mean uniform?"
    assert (
        refusal(policies=["xyz"])
        == f"policies: there is no policy 'xyz'; there are: {', '.join(sorted(path.stem for path in POLICIES))}"
    )


@pytest.mark.parametrize("stated", ["3", "[flat, 3]", "1e-2"])
def test_policies_of_another_type_are_refused(stated):
    message = refusal(without_policies(stated))
    assert message.startswith("config.yaml: policies: ")
    assert message.endswith("expected a name, a list of names, or a mapping")


def test_missing_policies_say_how_to_give_them():
    assert refusal(MINIMAL.replace("policies:", "# ")) == (
        "config.yaml: policies: missing; name one, like `policies: uniform`, or give --policy NAME"
    )


def test_fault_in_a_policy_file_is_placed():
    write_policy("slow", "-1")
    assert refusal(without_policies("slow")).startswith("policies/slow.yaml: lr = -1: ")


def in_policy(**options) -> dict[str, Any]:
    return {"policies": {"u": {"lr": 0.01} | options}}


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"trainin": {}}, "trainin: unknown key; did you mean training?"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown key; did you mean epochs?"),
        ({"training": {"optimizer": {"nam": 1}}}, "training.optimizer.nam: unknown key; did you mean name?"),
        (
            {"scoring": {"xyz": 1}},
            "scoring.xyz: unknown key; known are average, beta, zero_division, rule, at_least, at_most, transfer, "
            "metric",
        ),
        (in_policy(schedul="x"), "policies.u.schedul: unknown key; did you mean schedule?"),
        (
            in_policy(schedule={"name": "cosine", "warmu": 0.1}),
            "policies.u.schedule.warmu: unknown key; did you mean warmup?",
        ),
        (
            in_policy(schedule={"name": "one_cycle", "warmup": 0.1}),
            "policies.u.schedule.warmup: unknown key; known are name, div, div_final, pct_start, momentum_high, "
            "momentum_low",
        ),
        ({"kernel": {"internt": True}}, "kernel.internt: unknown key; did you mean internet?"),
        ({"policies": {"u": {}}}, "policies.u.lr: missing; this key has no default"),
        ({"policies": {}, "seeds": []}, "seeds = []: at least one is needed"),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: the same one stands there twice"),
        ({"data": {"mean": [1, 2]}}, "data.mean = [1, 2]: 2 values for 3 channels"),
        ({"data": {"device_memory": "auto"}}, "data.device_memory = 'auto': expected a number"),
        ({"training": {"epochs": 1.5}}, "training.epochs = 1.5: expected a whole number"),
        ({"training": {"compile": "graph"}}, "training.compile = 'graph': expected true or false, or 'graphs'"),
        ({"training": {"compile": None}}, "training.compile = None: expected true or false, or 'graphs'"),
        (
            {"training": {"mixup": 0.2, "batch_size": 7}},
            "training: mixup and cutmix need an even batch_size, not 7",
        ),
        (
            {"name": "a/b"},
            "name = 'a/b': expected letters, digits, '.', '_' and '-', beginning with a letter or digit",
        ),
        (
            in_policy(lr="fast"),
            "policies.u.lr = 'fast': 'fast' is not a learning rate; write 1e-2, slice(1e-6, 1e-2) or slice(1e-2)",
        ),
        (
            in_policy(lr="slice(1e-2, 1e-6)"),
            "policies.u: lr = slice(0.01, 1e-06): falls towards the head; swap the rates, or say "
            "`profile: reverse`",
        ),
        (in_policy(profile="layer_deccay"), "policies.u.profile = 'layer_deccay': did you mean layer_decay?"),
        (in_policy(phases="fine_tun"), "policies.u.phases.name = 'fine_tun': expected 'fine_tune'"),
        (
            in_policy(phases={}),
            "policies.u.phases: expected fine_tune, a mapping with `name: fine_tune`, or a list of phases",
        ),
        (in_policy(profile=3), "policies.u.profile = 3: expected a name, or a mapping with `name` and options"),
        (
            in_policy(schedule=None),
            "policies.u.schedule = None: expected a name, or a mapping with `name` and options",
        ),
        (
            in_policy(lr="slice(1e-4"),
            "policies.u.lr = 'slice(1e-4': 'slice(1e-4' is cut at its comma; within braces a slice needs quotes: "
            '"slice(1e-6, 1e-2)"',
        ),
        (in_policy(phases=[{"epoch": 1}]), "policies.u.phases[0].epoch: unknown key; did you mean epochs?"),
        (
            in_policy(phases=[{"epochs": 1, "schedule": {"name": "wsd", "decay": 2}}]),
            "policies.u.phases[0].schedule.decay = 2: expected less than or equal to 1",
        ),
        (
            in_policy(profile={"name": "explicit", "groups": {"fc": -1}}),
            "policies.u.profile.groups.fc = -1: expected greater than or equal to 0",
        ),
        (
            in_policy(controller={"name": "lars", "lowr": 1}),
            "policies.u.controller.lowr: unknown key; did you mean lower?",
        ),
    ],
)
def test_fault_is_exactly_this_line(sections, line):
    assert faults(**sections) == [line]


@pytest.mark.parametrize(
    ("sections", "place", "words"),
    [
        ({"training": {"epochs": "many"}}, "training.epochs = 'many'", ["a whole number"]),
        ({"training": {"epochs": 2.5}}, "training.epochs = 2.5", ["a whole number"]),
        ({"training": {"epochs": 0}}, "training.epochs = 0", ["greater than or equal to 1"]),
        ({"training": {"epochs": None}}, "training.epochs = None", ["a whole number"]),
        ({"training": {"clip_grad": -1}}, "training.clip_grad = -1", ["greater than 0"]),
        ({"training": {"deterministic": "perhaps"}}, "training.deterministic = 'perhaps'", ["true or false"]),
        (
            {"training": {"class_weights": "even"}},
            "training.class_weights = 'even'",
            ["'none' or 'balanced'", " or "],
        ),
        ({"training": {"class_weights": {"red": -1}}}, "training.class_weights.red = -1", ["greater than 0"]),
        ({"training": {"class_weights": {"red": "x"}}}, "training.class_weights.red = 'x'", ["number"]),
        ({"training": 3}, "training = 3", ["expected"]),
        ({"data": {"augment": "strong"}}, "data.augment = 'strong'", ["'light'", "'heavy'", "list"]),
        ({"data": {"augment": [3]}}, "data.augment[0] = 3", ["expected"]),
        ({"data": {"augment": ["Blur", {"Flip": 3}]}}, "data.augment[1].Flip = 3", ["expected"]),
        ({"data": {"augment": [{"Flip": None}]}}, "data.augment[0].Flip = None", ["expected"]),
        ({"data": {"workers": -1}}, "data.workers = -1", ["'auto'", "greater than or equal to 0"]),
        ({"data": {"workers": "x"}}, "data.workers = 'x'", ["'auto'", "a whole number"]),
        ({"data": {"cache": "x"}}, "data.cache = 'x'", ["'auto'", "true or false"]),
        ({"data": {"channels": 0}}, "data.channels = 0", ["greater than or equal to 1"]),
        ({"data": {"crop_pct": float("nan")}}, "data.crop_pct = nan", ["finite"]),
        ({"data": {"std": [0, 1, 1]}}, "data.std[0] = 0", ["greater than 0"]),
        ({"data": {"mean": [0.1, "x", 0.1]}}, "data.mean[1] = 'x'", ["number"]),
        ({"folds": {"k": 1}}, "folds.k = 1", ["greater than or equal to 2"]),
        ({"folds": {"run": "x"}}, "folds.run = 'x'", ["'all'"]),
        ({"folds": {"run": [1, -2]}}, "folds.run[1] = -2", ["greater than or equal to 0"]),
        ({"seeds": ["a"]}, "seeds[0] = 'a'", ["a whole number"]),
        ({"seeds": 3}, "seeds = 3", ["expected"]),
        ({"name": 3}, "name = 3", ["expected text"]),
        ({"name": "x" * 90}, "name", ["80 characters"]),
        ({"model": {"options": 3}}, "model.options = 3", ["expected"]),
        (
            {"scoring": {"average": "mean"}},
            "scoring.average = 'mean'",
            ["'macro', 'micro'", "'binary' or 'lowest'"],
        ),
        (in_policy(lr=-1), "policies.u.lr = -1", ["above 0"]),
        (in_policy(lr=float("nan")), "policies.u.lr = nan", ["finite"]),
        (in_policy(lr=[1]), "policies.u.lr = [1]", ["number"]),
        (in_policy(lr=True), "policies.u.lr = True", []),
        (in_policy(groups="layer"), "policies.u.groups = 'layer'", ["'block', 'stage' or 'coarse'"]),
        (in_policy(schedule={"name": "cosine", "warmup": 2}), "policies.u.schedule.warmup = 2", ["less than 1"]),
        ({"policies": {"a b": {"lr": 1}}}, "policies.a b", ["letters, digits"]),
        ({"policies": {"u": 3}}, "policies.u = 3", ["expected"]),
        ({"competition": {"embedded": "mnist"}}, "competition.embedded = 'mnist'", ["'digits'"]),
        ({"competition": {"slug": 3}}, "competition.slug = 3", ["expected text"]),
        ({"competition": {"slug": 3, "path": None}}, "competition.slug = 3", ["expected text"]),
        ({"competition": {"slug": "a/b/c"}}, "competition.slug = 'a/b/c'", ["owner/slug of a dataset"]),
        ({"competition": {"slug": "Waste 2.0"}}, "competition.slug = 'Waste 2.0'", ["in its address on Kaggle"]),
        ({"competition": {"slug": "../up"}}, "competition.slug = '../up'", ["in its address on Kaggle"]),
        ({"competition": {"slug": "x" * 151}}, "competition.slug", ["in its address on Kaggle"]),
        ({"kernel": {"owner": "Jo Doe"}}, "kernel.owner = 'Jo Doe'", ["a Kaggle user name"]),
        ({"kernel": {"owner": "jo/doe"}}, "kernel.owner = 'jo/doe'", ["a Kaggle user name"]),
        ({"kernel": {"datasets": "jo/data"}}, "kernel.datasets = 'jo/data'", ["expected a list"]),
        ({"kernel": {"datasets": ["jo/a", "b"]}}, "kernel.datasets[1] = 'b'", ["owner/slug, as in the address"]),
        ({"kernel": {"kernels": ["jo/a/3"]}}, "kernel.kernels[0] = 'jo/a/3'", ["owner/slug, as in the address"]),
        (
            {"kernel": {"models": ["jo/a"]}},
            "kernel.models[0] = 'jo/a'",
            ["owner/model/framework/variation/version"],
        ),
        ({"kernel": {"models": ["jo/a/timm/b/v1"]}}, "kernel.models[0]", ["variation/version"]),
        (
            {"kernel": {"accelerator": "NvidiaTeslaP100"}},
            "kernel.accelerator = 'NvidiaTeslaP100'",
            ["the torch of Kaggle's image has no code for a P100", "take NvidiaTeslaT4"],
        ),
        (
            {"kernel": {"accelerator": "TpuV5E8"}},
            "kernel.accelerator = 'TpuV5E8'",
            ["a TPU gets the image without a GPU's torch", "take NvidiaTeslaT4, or none for the CPU"],
        ),
        (
            {"kernel": {"accelerator": "Nvidia"}},
            "kernel.accelerator = 'Nvidia'",
            ["'none', 'NvidiaTeslaT4', 'NvidiaL4', 'NvidiaL4X1'", "'NvidiaRtxPro6000'"],
        ),
        ({"kernel": {"infer_hours": 12.5}}, "kernel.infer_hours = 12.5", ["less than or equal to 12"]),
        ({"budget": "8:30"}, "budget = '8:30'", ["expected a time like 90s, 45m, 8h30m or 1d2h, or seconds"]),
        ({"budget": 0}, "budget = '0'", ["more than 0"]),
        ({"budget": "soon"}, "budget = 'soon'", ["expected a time like 90s"]),
        ({"kernel": {"hours": 12.5}}, "kernel.hours = 12.5", ["less than or equal to 12"]),
        ({"kernel": {"hours": 0}}, "kernel.hours = 0", ["greater than 0"]),
        ({"kernel": {"max_code_kb": 19}}, "kernel.max_code_kb = 19", ["greater than or equal to 20"]),
        ({"kernel": {"max_code_kb": 100_001}}, "kernel.max_code_kb = 100001", ["less than or equal to 100000"]),
        ({"kernel": {"image": "newest"}}, "kernel.image = 'newest'", ["'latest' or 'original'"]),
        ({"kernel": {"internet": "x"}}, "kernel.internet = 'x'", ["true or false"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fault_is_one_line_with_its_place_the_value_and_what_is_allowed(sections, place, words):
    (line,) = faults(**sections)
    shown, message = line.split(": ", 1)
    assert shown == place or shown.startswith(f"{place} = ")
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "sections",
    [
        {"training": 3},
        {"training": {"class_weights": 3}},
        {"training": {"optimizer": "sgd"}},
        {"seeds": 3},
        {"folds": {"run": "x"}},
        {"name": "x" * 90},
        {"policies": {"u": 3}},
        in_policy(schedule={"warmup": 0.2}),
        in_policy(schedule=3),
    ],
)
def test_faults_are_told_in_the_words_of_yaml(sections):
    """A user has mappings and lists; what pydantic makes of them is no help."""
    told = " ".join(faults(**sections))
    jargon = ["dictionary", "tuple", "instance of", "discriminator", "Config", "object", "String"]
    assert [word for word in jargon if word in told] == []


@pytest.mark.parametrize("stated", ["triangle", {"name": "triangle", "warmup": 0.1}])
def test_unknown_schedule_is_shown_with_those_there_are(stated):
    (line,) = faults(**in_policy(schedule=stated))
    assert line.startswith("policies.u.schedule = 'triangle': expected one of 'constant', 'cosine', ")
    assert line.endswith(", file.py:name of your own")


def test_schedule_without_a_name_says_so():
    lines = faults(**in_policy(schedule={"warmup": 0.2}))
    assert lines == ["policies.u.schedule.name: missing; this key has no default"]


def test_missing_sections_are_named():
    with pytest.raises(KitError) as raised:
        validate({"name": "x"}, "config.yaml")
    assert str(raised.value).splitlines() == [
        "config.yaml: competition: missing; this key has no default",
        "config.yaml: policies: missing; this key has no default",
    ]


def test_empty_policies_are_refused():
    assert refusal(without_policies("{}")) == "config.yaml: policies: at least one is needed"
    assert refusal(without_policies("[]")) == "config.yaml: policies: at least one is needed"


def test_all_faults_are_listed_at_once():
    lines = faults(
        training={"epochs": "x", "batch_size": 0}, data={"siz": 3}, policies={"u": {"lr": -1}, "v": {"lr": "x"}}
    )
    assert sorted(line.split(":")[0] for line in lines) == [
        "data.siz",
        "policies.u.lr = -1",
        "policies.v.lr = 'x'",
        "training.batch_size = 0",
        "training.epochs = 'x'",
    ]


@pytest.mark.parametrize(
    ("stated", "schedule"),
    [
        ("one_cycle", OneCycle()),
        ("cosine", Cosine()),
        ("constant", Constant()),
        ({"name": "cosine", "warmup": 0.1, "floor": 0.01}, Cosine(warmup=0.1, floor=0.01)),
    ],
)
def test_schedule_by_name_or_with_its_options(stated, schedule):
    assert described(**in_policy(schedule=stated)).policies["u"].schedule == schedule


# Text as users have it: labels and folders in any script.
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
positive = st.floats(1e-12, 1e12)
rates = st.one_of(
    positive,
    positive.map(lambda rate: f"slice({rate})"),
    st.tuples(positive, positive).map(lambda pair: f"slice({min(pair)}, {max(pair)})"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
contents = st.fixed_dictionaries(
    {
        "name": names,
        "competition": st.fixed_dictionaries({"path": texts, "label": texts, "test": st.none() | texts}),
        "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True),
        "folds": st.fixed_dictionaries({"run": st.just("all") | st.lists(st.integers(0, 99), max_size=3)}),
        "data": st.fixed_dictionaries(
            {
                "crop_pct": st.floats(0.5, 1),
                "mean": st.none() | st.tuples(*[st.floats(-1e9, 1e9)] * 3),
                "augment": st.just("heavy")
                | st.lists(texts | st.dictionaries(texts, st.just({"p": 0.5}), max_size=2)),
                "cache": st.sampled_from(["auto", True, False]),
            }
        ),
        "model": st.fixed_dictionaries({"options": st.dictionaries(texts, json_values, max_size=3)}),
        "training": st.fixed_dictionaries(
            {
                "clip_grad": st.none() | positive,
                "class_weights": st.just("balanced") | st.dictionaries(texts, positive, max_size=3),
            }
        ),
        "policies": st.dictionaries(
            names,
            st.fixed_dictionaries({"lr": rates, "schedule": st.sampled_from(["cosine", "constant"])}),
            min_size=1,
        ),
    }
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(contents)
def test_yaml_round_trip(content):
    experiment = validate(content, "content")
    write_text(Path("stored.yaml"), experiment.to_yaml())
    assert load_experiment("stored.yaml") == experiment
    assert validate(yaml.safe_load(experiment.to_yaml()), "content") == experiment


@pytest.mark.parametrize(
    "text", ["1e5", "1E-2", "1.5e3", "007", "0x1f", "1_000", "yes", "null", "~", "2024-01-01", "1:30"]
)
def test_text_that_yaml_could_misread_survives_the_round_trip(text):
    experiment = described(competition={"label": text, "id": text}, training={"class_weights": {text: 2.0}})
    write_text(Path("stored.yaml"), experiment.to_yaml())
    assert load_experiment("stored.yaml") == experiment


def test_round_trip_keeps_the_order_of_policies_and_the_schedule():
    policies = {"b": {"lr": 1, "schedule": {"name": "cosine", "warmup": 0.2}}, "a": {"lr": "slice(1e-6,1e-2)"}}
    again = validate(yaml.safe_load(described(policies=policies).to_yaml()), "stored.yaml")
    assert list(again.policies) == ["uniform", "b", "a"]
    assert again.policies["b"].schedule == Cosine(warmup=0.2)
    assert again.policies["a"].lr == "slice(1e-06, 0.01)"


def digest(**sections) -> str:
    return fingerprint(described(**sections).canonical())


def test_fingerprint_is_of_canonical_json():
    """sha256 of {"a":[1.5,"ü"],"b":null}"""
    assert fingerprint({"b": None, "a": (1.5, "ü")}) == "cd70cf4c2c85d684"


def test_fingerprint_ignores_the_order_of_keys():
    content = experiment_content(Path("here"))

    def backwards(value):
        return {key: backwards(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    assert fingerprint(validate(backwards(content), "x").canonical()) == digest()


def test_fingerprint_ignores_defaults_that_are_spelled_out():
    spelled = yaml.safe_load(described().to_yaml())
    assert len(spelled["training"]) > len(experiment_content(Path("here"))["training"])
    assert fingerprint(validate(spelled, "x").canonical()) == digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1e-2", "0.01"),
        ("1e-2", "1.0e-02"),
        ("1", "1.0"),
        ("slice(1e-6,1e-2)", "slice( 0.000001, 0.01 )"),
        ("slice(1e-2)", "slice(0.01)"),
    ],
)
def test_fingerprint_ignores_how_a_rate_is_spelled(one, other):
    written = [load(without_policies(f"{{u: {{lr: '{text}'}}}}")) for text in (one, other)]
    assert len({fingerprint(each.canonical()) for each in written}) == 1


@pytest.mark.parametrize("text", ["1e-2", "0.01", "'0.01'"])
def test_fingerprint_ignores_how_yaml_reads_a_rate(text):
    assert fingerprint(load(without_policies(f"{{flat: {{lr: {text}}}}}")).canonical()) == fingerprint(
        load().canonical()
    )


INCIDENTAL = {  # where things lie, how fast it goes, what is shown, how it goes to Kaggle
    "policies.uniform.description": "other words",
    "competition.path": "elsewhere",
    "competition.slug": "other",
    "competition.embedded": "digits",
    "competition.test": None,
    "competition.sample_submission": "other.csv",
    "competition.test_images": "other/{id}",
    "competition.names": {"0": "zero"},
    "competition.predict_by": "patient",  # what it changes of trainings is in the fold plan
    "competition.submission": "labels",
    "competition.submit_names": True,
    "competition.ordered": True,
    "folds.run": [1],
    "data.cache": False,
    "data.cache_gb": 1,
    "data.megapixels": 500,
    "data.background": "black",
    "data.levels": [0, 4095],
    "data.text_chunk_mb": 8,
    "data.workers": 2,
    "data.device_memory": 0,
    "training.evaluate_every": 0,
    "training.log_every": 7,
    "training.checkpoint_minutes": 1,
    "training.tracker": "wandb",
    "training.probes": {"every": 3},
    "training.device": "auto",
    "code": {"mine.py": "0123456789abcdef"},  # the kit writes the files' own there
    "model.weights": "hub",  # what the weights are is digested apart, from the file's content
    "prediction.views": ["hflip", {"scales": [0.8]}, {"tiles": 2, "pool": "max"}],
    "prediction.size": 64,
    "prediction.average": "logits",
    "prediction.batch_size": 3,
    "compare.baseline": "uniform",
    "compare.margin": 0.02,
    "compare.mixed_devices": True,
    "compare.level": 0.9,
    "compare.tune": {"rates": [1e-3, 1e-2]},
    "compare.equalise": True,
    "kernel.owner": "jo",
    "kernel.accelerator": "none",
    "kernel.internet": True,
    "kernel.hours": 1.5,
    "kernel.infer_hours": 2,
    "budget": "8h30m",
    "kernel.kernels": ["jo/tiny-train"],
    "kernel.datasets": ["jo/weights"],
    "kernel.models": ["jo/resnet/pyTorch/default/1"],
    "kernel.image": "original",
    "kernel.max_code_kb": 20,
}
DECIDING = {
    "competition.train": "other.csv",
    "competition.tables": "pandas:read_parquet",
    "competition.join": {"table": "more.csv", "on": "id"},
    "competition.long_form": True,
    "competition.id": "name",
    "competition.label": "class",
    "competition.train_images": "other/{id}",
    "competition.separator": " ",
    "competition.classes": ["a", "b"],
    "competition.classes_without_rows": "allowed",
    "competition.weight": "weight",
    "competition.extra": {"table": "more.csv", "images": "more/{id}"},
    "folds.k": 4,
    "folds.seed": 1,
    "folds.stratify": False,
    "folds.group": "patient",
    "folds.group_pattern": "^.",
    "folds.duplicates": 4,
    "folds.time": "date",
    "folds.time_format": "%d/%m/%Y",
    "folds.column": "fold",
    "data.size": 40,
    "data.channels": 1,
    "data.resize": "pad",
    "data.crop_pct": 0.9,
    "data.interpolation": "nearest",
    "data.mean": [0.5, 0.5, 0.5],
    "data.std": [0.5, 0.5, 0.5],
    "data.augment": ["HorizontalFlip"],
    "data.augment_on": "device",
    "data.decoder": "PIL.Image:open",
    "data.decode": "fast",
    "model.name": "resnet18",
    "model.drop": 0.1,
    "model.options": {"drop_path_rate": 0.1},
    "model.depth": ["conv", "."],
    "policies.uniform.lr": 0.02,
    "policies.uniform.groups": "block",
    "policies.uniform.profile": "layer_decay",
    "policies.uniform.freeze_to": -1,
    "policies.uniform.phases": "fine_tune",
    "policies.uniform.train_norm": False,
    "policies.uniform.kinds": {"bias": 2},
    "policies.uniform.equalise": True,
    "policies.uniform.controller": "lamb",
    "policies.uniform.schedule.name": "cosine",
    "policies.uniform.schedule.div": 10,
    "policies.uniform.schedule.div_final": 10,
    "policies.uniform.schedule.pct_start": 0.3,
    "policies.uniform.schedule.momentum_high": 0.9,
    "policies.uniform.schedule.momentum_low": 0.8,
    "training.epochs": 7,
    "training.batch_size": 4,
    "training.accumulate": 2,
    "training.optimizer.name": "sgd",
    "training.optimizer.weight_decay": 0,
    "training.optimizer.options": {"eps": 1e-5},
    "training.precision": "bf16",
    "training.clip_grad": 1,
    "training.sampler": "sqrt",
    "training.loss": {"name": "torch.nn.functional:cross_entropy"},
    "training.label_smoothing": 0.1,
    "training.class_weights": "balanced",
    "training.mixup": 0.2,
    "training.cutmix": 0.2,
    "training.ema": 0.99,
    "training.average": {"last": 0.5},
    "training.norm_batches": 3,
    "training.sync_batch_norm": True,
    "training.on_nonfinite": "skip",
    "training.deterministic": False,
    "training.compile": True,
    "features": {"heads": ["knn"]},
    "soup": {"of": "other", "seeds": [0, 1]},
    "scoring.average": "micro",
    "scoring.beta": 2,
    "scoring.zero_division": 1,
    "scoring.rule": "offsets",
    "scoring.at_least": 0,
    "scoring.at_most": 1,
    "scoring.transfer": "vote",
    "scoring.metric": "sklearn.metrics:accuracy_score",
    "seeds": [1],
}


def with_key(key: str, value: Any) -> str:
    Path("config.yaml").write_text(yaml.safe_dump(experiment_content(Path("here"))))
    changes = [f"{key}={json.dumps(value)}"]
    if key.startswith("policies.uniform.schedule.") and not key.endswith(".name"):
        changes.insert(0, "policies.uniform.schedule.name=one_cycle")
    if key == "folds.group_pattern":
        changes.insert(0, "folds.group=id")
    if key == "folds.time_format":
        changes.insert(0, "folds.time=date")
    if key == "features":
        changes.insert(0, "policies=null")
    if key == "competition.submit_names":
        changes.insert(0, "competition.names={a: A}")
    return fingerprint(load_experiment("config.yaml", changes).canonical())


@pytest.mark.parametrize("key", INCIDENTAL)
def test_fingerprint_ignores_what_cannot_change_a_result(key):
    assert with_key(key, INCIDENTAL[key]) == digest()


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("path", "elsewhere", False),
        ("slug", "owner/more", False),
        ("source", "digits", False),
        ("table", "other.csv", True),
        ("images", "test", True),
        ("id", "name", True),
        ("label", "class", True),
        ("shares", True, True),
        ("weight", 0.5, True),
        ("fold", "fold", True),
    ],
)
def test_of_extra_rows_the_fingerprint_ignores_where_they_lie(key, value, other):
    table = {"table": "more.csv", "images": "more/{id}"}
    same = with_key("competition.extra", [table]) == with_key("competition.extra", table | {key: value})
    assert same != other


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "competition.extra.table: missing"),
        ({"table": "a.csv"}, "competition.extra.images: missing"),
        ({"label": "class", "shares": True}, "label and shares tell the labels both"),
        ({"slug": "more"}, "slug is owner/slug of a dataset or a kernel"),
        ({"weight": 0}, "competition.extra.weight = 0"),
        ({"weight": True}, "true and false"),
        ({"tabel": "x"}, "unknown key; did you mean table"),
    ],
)
def test_extra_rows_that_cannot_be(table, message):
    whole = table if "table" in table or not table else {"table": "more.csv", "images": "more/{id}"} | table
    with pytest.raises(KitError, match=re.escape(message)):
        described(competition={"extra": whole})


def test_extra_images_are_read_as_the_others():
    table = {"table": "more.csv", "images": ["a/{id}", "b/{id}"]}
    with pytest.raises(KitError, match=r"competition.extra\[0\].images names 2 files an image"):
        described(competition={"extra": table})
    pixels = {"table": "more.csv", "images": {"columns": "pixel*"}}
    with pytest.raises(KitError, match=r"images of competition.extra are columns of a table"):
        described(competition={"extra": pixels}, data={"decoder": "PIL.Image:open"})


def test_an_extra_table_with_a_slug_lies_where_fetched_datasets_do():
    extra = described(competition={"extra": {"table": "a.csv", "images": "{id}", "slug": "owner/more"}})
    assert extra.competition.extra[0].path == "data/more"


@pytest.mark.parametrize("key", DECIDING)
def test_fingerprint_depends_on_what_decides_a_result(key):
    assert with_key(key, DECIDING[key]) != digest()


def keys_of(section: FrozenOptions, prefix: str = ""):
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, FrozenOptions):
            yield from keys_of(value, f"{prefix}{name}.")
        elif isinstance(value, dict) and value and all(isinstance(each, FrozenOptions) for each in value.values()):
            for entry, each in value.items():
                yield from keys_of(each, f"{prefix}{name}.{entry}.")
        else:
            yield prefix + name


def test_every_key_is_known_to_decide_or_not():
    """A new option belongs in one of the two lists above: does it change results?"""
    assert set(keys_of(described())) - {"name"} == set(INCIDENTAL) | set(DECIDING)


def test_the_kernel_section_is_no_part_of_what_decides():
    assert "kernel" not in described(kernel={"owner": "jo"}).canonical()
    assert "kernel" in yaml.safe_load(described(kernel={"owner": "jo"}).to_yaml())


def test_fingerprint_depends_on_the_policies_and_their_names():
    other = {"policies": {"other": {"lr": 0.1}}}
    assert digest(**other) != digest()
    assert digest(policies={"other": {"lr": 0.1, "schedule": "one_cycle"}}) == digest(**other)


def test_fingerprint_of_a_section_stands_alone():
    assert fingerprint(DataConfig(workers=3).canonical()) == fingerprint(DataConfig().canonical())
    assert fingerprint(DataConfig(size=32).canonical()) != fingerprint(DataConfig().canonical())


@pytest.mark.parametrize(("name", "overrides"), [("digits", []), ("trashnet", ["competition.path=x"])])
def test_configs_of_the_kit_are_valid(name, overrides):
    experiment = load_experiment(CONFIGS / f"{name}.yaml", overrides)
    assert experiment.name == name
    assert experiment.folds.k == 5


def test_config_without_its_competition_s_folder_asks_for_it():
    with pytest.raises(KitError) as raised:
        load_experiment(CONFIGS / "trashnet.yaml")
    assert str(raised.value) == (
        f"{CONFIGS / 'trashnet.yaml'}: competition: path is missing; give the competition's folder, or Kaggle's "
        "slug of it"
    )


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        ("{slug: waste}", "data/waste"),
        ("{slug: jo/waste_photos}", "data/waste_photos"),
        ("{slug: waste, path: }", "data/waste"),
        ("{slug: waste, path: there}", "there"),
    ],
)
def test_the_slug_gives_the_folder_where_no_path_does(stated, path):
    experiment = load(MINIMAL.replace("{path: here}", stated))
    assert experiment.competition.path == path
    assert validate(yaml.safe_load(experiment.to_yaml()), "stored") == experiment


def test_the_slug_may_come_from_the_command_line():
    experiment = load(MINIMAL.replace("competition: {path: here}\n", ""), ["competition.slug=waste"])
    assert (experiment.competition.slug, experiment.competition.path) == ("waste", "data/waste")


@pytest.mark.parametrize(
    ("accelerator", "gpus"),
    [
        ("none", 0),
        ("NvidiaTeslaT4", 2),
        ("NvidiaL4", 1),
        ("NvidiaL4X1", 1),
        ("NvidiaTeslaA100", 1),
        ("NvidiaH100", 1),
        ("NvidiaRtxPro6000", 1),
    ],
)
def test_gpus_of_each_accelerator(accelerator, gpus):
    assert described(kernel={"accelerator": accelerator}).kernel.gpus == gpus


def test_kernel_references_of_the_right_form_are_taken():
    stated = {
        "owner": "jo-doe_1",
        "kernels": ["jo-doe_1/tiny-train-fold-0"],
        "datasets": ["jo/A_b-3"],
        "models": ["google/efficientnet/pyTorch/tf2-b0.1/12"],
        "hours": 12,
        "max_code_kb": 100_000,
    }
    kernel = described(kernel=stated).kernel
    assert kernel.model_dump(include=stated.keys()) == stated | {
        name: tuple(stated[name]) for name in ("kernels", "datasets", "models")
    }


def test_defaults_of_a_kernel():
    assert load().kernel.model_dump() == {
        "owner": None,
        "accelerator": "NvidiaTeslaT4",
        "internet": False,
        "hours": 12.0,
        "infer_hours": 9.0,
        "kernels": None,
        "datasets": (),
        "models": (),
        "image": "latest",
        "max_code_kb": 900,
    }


def test_policies_of_the_thread():
    """thread.txt: one-cycle, once at 1e-2 for every layer, once with slice(1e-6, 1e-2)."""
    policies = load_experiment(CONFIGS / "digits.yaml", policies=["uniform", "discriminative"]).policies
    assert (policies["uniform"].lr, policies["discriminative"].lr) == (0.01, "slice(1e-06, 0.01)")
    assert {policy.schedule for policy in policies.values()} == {OneCycle()}
    assert {policy.groups for policy in policies.values()} == {"coarse"}


def test_what_is_refused_today_can_still_be_read_where_it_was_run(tmp_path):
    """An experiment with freeze_out under one-cycle was trained once: its report and submission still need it."""
    text = MINIMAL.replace("flat: {lr: 1e-2}", "old: {lr: 1e-2, profile: freeze_out}")
    assert "policies.old: profile freeze_out anneals each depth group itself" in refusal(text)
    folder = ExperimentDir(tmp_path / "runs/tiny")
    write_text(folder.config, text)
    stored = stored_experiment(folder)
    assert stored is not None
    assert isinstance(stored.policies["old"].schedule, OneCycle)
    assert stored.policies["old"].profile == FreezeOut()


@pytest.mark.parametrize(
    ("training", "other"),
    [
        ({"class_weights": "balanced", "accumulate": 2}, True),
        ({"class_weights": "balanced", "batch_size": 1}, True),
        ({"class_weights": "balanced"}, False),
        ({"accumulate": 2}, False),
        ({"class_weights": "balanced", "accumulate": 2, "mixup": 0.2, "batch_size": 8}, False),
    ],
)
def test_runs_that_weighed_classes_in_parts_are_not_those_of_today(training, other):
    """Earlier versions divided each part of an update by its own sum of weights."""
    experiment = described(training=training)
    apart = ("name", "policies", "seeds", "scoring", "code")
    then = {name: value for name, value in experiment.canonical().items() if name not in apart}
    then = fingerprint(then | {"prediction": {"tta": "none"}})
    assert (config_digest(experiment) != then) == other
