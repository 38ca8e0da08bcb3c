"""The files of numbers of a run: what is written is read, in every version, and damage is told."""

import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from support.refusals import refusal_of

from kit.core.runs import TRAINED_ANEW, RunDir, RunRecord
from kit.training.records import (
    Activations,
    Learning,
    RateRecord,
    activations_of,
    append_history,
    history_of,
    rates_of,
    read_history,
    write_history,
)

RATES = RateRecord(
    groups=["stem", "head"],
    lr=np.array([[0.1, 0.2], [np.nan, np.nan]]),
    frozen=np.array([[True, False], [False, False]]),
    momentum=np.array([0.9, np.nan]),
    multiplier=np.array([[1.0, 2.0], [np.nan, np.nan]]),
    signals={"weight": np.array([[3.0, 4.0], [np.nan, np.nan]])},
)
ACTIVATIONS = Activations(
    steps=np.array([0, 10]),
    layers=["conv1", "layer1"],
    edges=np.array([0.5, 1.0, 2.0], dtype=np.float32),
    counts=np.arange(16, dtype=np.uint32).reshape(2, 2, 4),
    mean=np.zeros((2, 2), dtype=np.float32),
    std=np.ones((2, 2), dtype=np.float32),
    near_zero=np.full((2, 2), 0.5, dtype=np.float32),
)
MEASURED = np.array([[1.0, 2.0], [3.0, np.inf]], dtype=np.float32)
LEARNING = Learning(
    steps=np.array([0, 10]),
    groups=["stem", "head"],
    n_params=np.array([3, 4]),
    **dict.fromkeys(("update", "distance", "rotation", "gradient", "rate"), MEASURED),
    butterfly_steps=np.array([0]),
    butterfly=np.array([[0.1, 0.2]], dtype=np.float32),
    relative=0.01,
)
RECORDS = [RATES, ACTIVATIONS, LEARNING]


def assert_equal(first, second):
    for each in fields(first):
        before, after = getattr(first, each.name), getattr(second, each.name)
        assert type(before) is type(after)
        if isinstance(before, dict):
            before, after = tuple(before.items()), tuple(after.items())
            assert [name for name, _ in before] == [name for name, _ in after]
            before, after = [values for _, values in before], [values for _, values in after]
        np.testing.assert_array_equal(before, after, strict=isinstance(before, np.ndarray))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read(tmp_path, record):
    record.save(tmp_path / "record.npz")
    assert_equal(record, type(record).load(tmp_path / "record.npz"))


def test_rates_are_saved_under_these_names_and_of_these_kinds(tmp_path):
    RATES.save(tmp_path / "rates.npz")
    with np.load(tmp_path / "rates.npz") as saved:
        assert {name: values.dtype.str for name, values in saved.items()} == {
            "groups": "<U4", "lr": "<f8", "frozen": "|b1", "momentum": "<f8", "multiplier": "<f8",
            "signal_weight": "<f8",
        }  # fmt: skip


def test_rates_of_a_static_policy_and_of_earlier_versions_are_read(tmp_path):
    RateRecord(RATES.groups, RATES.lr, RATES.frozen, RATES.momentum).save(tmp_path / "static.npz")
    static = RateRecord.load(tmp_path / "static.npz")
    assert (static.multiplier, static.signals) == (None, {})
    np.savez(tmp_path / "old.npz", groups=RATES.groups, lr=RATES.lr)
    old = RateRecord.load(tmp_path / "old.npz")
    assert (old.groups, old.frozen, old.momentum) == (RATES.groups, None, None)
    np.testing.assert_array_equal(old.lr, RATES.lr)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text", "poor"])
def test_a_damaged_file_is_told_in_one_line(tmp_path, record, damage):
    path = tmp_path / "record.npz"
    record.save(path)
    whole = path.read_bytes()
    if damage == "poor":
        np.savez(path, steps=[1])
    else:
        path.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "empty": b"",
                "flipped": bytes(byte ^ 0xFF if 60 < place < 120 else byte for place, byte in enumerate(whole)),
                "text": b"no arrays",
            }[damage]
        )
    message = refusal_of(type(record).load, path)
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith(f"); {TRAINED_ANEW}")


def test_history_of_a_run(tmp_path):
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    lines = [{"step": 5, "loss": 0.1 + 0.2}, {"step": 10, "valid_score": 0.75}]
    for line in lines:
        append_history(path, line)
    assert read_history(path) == lines
    assert path.read_text() == "".join(json.dumps(line) + "\n" for line in lines)
    write_history(path, lines[:1])  # from a checkpoint before the second
    append_history(path, lines[1])
    assert read_history(path) == lines


def test_a_line_that_was_cut_is_told(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 5, "loss": 0.5}\n{"step": 10, "lo')
    assert refusal_of(read_history, path).startswith(f"{path} is damaged (")
    write_history(path, [{"step": 5, "loss": 0.5}])  # as a run does that goes on
    assert read_history(path) == [{"step": 5, "loss": 0.5}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ('{"step": 5}', "its last line is cut"),
        ('{"step": 5}\n{"step": 10}', "its last line is cut"),
        ('{"step": 5}\n[5]\n', "line 2 names no step"),
        ('{"step": 5}\n{"stpp": 10}\n', "line 2 names no step"),
        ('{"step": "5"}\n', "line 1 names no step"),
    ],
)
def test_a_history_that_is_none(tmp_path, text, reason):
    path = tmp_path / "history.jsonl"
    path.write_text(text)
    assert refusal_of(read_history, path) == f"{path} is damaged ({reason}); {TRAINED_ANEW}"


def run_of(folder, files: bool) -> RunDir:
    run = RunDir(folder / "uniform/seed0/fold0")
    run.path.mkdir(parents=True)
    RATES.save(run.rates)
    write_history(run.history, [{"step": 1, "epoch": 0.5, "loss": 1.0}, {"step": 2, "epoch": 1.0, "loss": 0.5}])
    record = RunRecord(status="finished", policy="uniform", seed=0, fold=0, steps=2)
    run.write(record.with_fields(files=run.digests()) if files else record)
    return run


def test_a_history_or_rates_that_end_too_early(tmp_path):
    """Cut at the end of a line, in a run of an earlier version: the number of updates tells it."""
    run = run_of(tmp_path, files=False)
    assert [line["step"] for line in history_of(run)] == [1, 2]
    assert rates_of(run).groups == RATES.groups
    write_history(run.history, history_of(run)[:1])
    assert refusal_of(history_of, run) == f"{run.history} is damaged (it ends with update 1 of 2); {TRAINED_ANEW}"
    replace(RATES, lr=RATES.lr[:1]).save(run.rates)
    assert refusal_of(rates_of, run) == (
        f"{run.rates} is damaged (it has the rates of 1 updates of 2); {TRAINED_ANEW}"
    )
    replace(RATES, lr=RATES.lr[:, :1]).save(run.rates)
    assert refusal_of(rates_of, run) == (
        f"{run.rates} is damaged (its rates [2, 1] are not of its 2 depth groups); {TRAINED_ANEW}"
    )


COPY = f"bring it back from a copy (predictions do not need it, curves do), or {TRAINED_ANEW}"


def test_a_history_that_was_changed_is_told(tmp_path):
    run = run_of(tmp_path, files=True)
    run.history.write_text(run.history.read_text().replace("0.5}", "0.4}"))
    assert refusal_of(history_of, run) == (
        f"{run.history} is damaged (its content is not what was written); {COPY}"
    )
    run.history.unlink()
    assert refusal_of(history_of, run) == f"{run.history} is missing; {COPY}"
    assert activations_of(run) is None


def test_readers_need_no_torch():
    code = "import sys, kit.training.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
