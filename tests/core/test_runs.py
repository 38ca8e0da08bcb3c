"""The run directory, and predictions that are joined by id."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core.runs import (
    TRAINED_ANEW,
    ExperimentDir,
    RunDir,
    RunKey,
    RunRecord,
    average,
    in_order,
    predictions,
    read_predictions,
    write_predictions,
)

CLASSES = ["cat", "ant", "bee"]


def random_predictions(ids: list[str], seed: int = 0) -> pd.DataFrame:
    return predictions(ids, np.random.default_rng(seed).dirichlet([1, 1, 1], len(ids)), CLASSES)


def test_predictions_are_float32_by_id_in_the_given_order():
    frame = predictions(["b", "a"], np.array([[0.25, 0.75], [1, 0]]), ["yes", "no"])
    assert frame.index.tolist() == ["b", "a"]
    assert frame.index.name == "id"
    assert frame.columns.tolist() == ["yes", "no"]
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    assert frame.loc["a"].tolist() == [1, 0]


def test_predictions_that_do_not_fit_their_ids_are_refused():
    with pytest.raises(ValueError):
        predictions(["a", "b", "c"], np.zeros((2, 3)), CLASSES)


def test_parquet_keeps_ids_columns_and_bits(tmp_path):
    frame = random_predictions(["007", "7", "1e3", "true", "a b", "ü"])
    write_predictions(frame, tmp_path / "oof.parquet")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "oof.parquet"), frame, check_exact=True)


@pytest.mark.parametrize("classes", [["1", "0", "10"], ["index", "level_0", "x"]])
def test_parquet_keeps_classes_of_any_name(tmp_path, classes):
    frame = predictions(["a", "b"], np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]), classes)
    write_predictions(frame, tmp_path / "oof.parquet")
    read = read_predictions(tmp_path / "oof.parquet")
    assert read.columns.tolist() == classes
    np.testing.assert_array_equal(read.to_numpy(), frame.to_numpy())


@pytest.mark.parametrize("rows", [0, 1, 5, 12])
def test_predictions_of_any_number_of_rows_are_written_in_pieces(tmp_path, monkeypatch, rows):
    frame = random_predictions([f"{row:02d}" for row in range(rows)], 0)
    write_predictions(frame, tmp_path / "whole.parquet")
    monkeypatch.setattr("kit.core.runs._PIECE", 5 * len(CLASSES))
    write_predictions(frame.astype(float), tmp_path / "pieces.parquet")  # means are of twice the precision
    whole, pieces = (read_predictions(tmp_path / f"{name}.parquet") for name in ("whole", "pieces"))
    pd.testing.assert_frame_equal(pieces, whole)
    assert (pieces.dtypes == np.float32).all()
    groups = pq.ParquetFile(tmp_path / "pieces.parquet").num_row_groups
    assert groups == max(1, -(-rows // 5))


def test_average_is_by_id_not_by_position():
    one = predictions(["a", "b"], np.array([[0.0, 1.0], [0.5, 0.5]]), ["x", "y"])
    other = predictions(["b", "a"], np.array([[1.0, 0.0], [0.5, 0.5]]), ["x", "y"])
    pooled = average([one, other])
    assert pooled.index.tolist() == ["a", "b"]
    assert pooled.loc["a"].tolist() == [0.25, 0.75]
    assert pooled.loc["b"].tolist() == [0.75, 0.25]


def test_average_joins_classes_by_name():
    one = predictions(["a"], np.array([[0.2, 0.8]]), ["x", "y"])
    assert average([one, one[["y", "x"]]]).loc["a"].to_dict() == pytest.approx({"x": 0.2, "y": 0.8})


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.permutations([f"{number:03d}" for number in range(12)]), min_size=1, max_size=4), st.data())
def test_average_of_shuffled_parts_is_a_slow_loop(orders, data):
    frames = []
    for seed, order in enumerate(orders):  # each a fold or seed that holds only some ids, in its own order
        held = data.draw(st.integers(1, len(order)), label="ids held")
        frames.append(random_predictions(list(order[:held]), seed))
    collected = defaultdict(list)
    for frame in frames:
        for name, row in frame.iterrows():
            collected[name].append([float(value) for value in row])
    pooled = average(frames)
    assert pooled.index.tolist() == list(collected)
    assert pooled.index.name == "id"
    assert pooled.columns.tolist() == CLASSES
    for name, rows in collected.items():
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        np.testing.assert_allclose(pooled.loc[name], mean, rtol=1e-12)


def test_average_over_folds_and_seeds_of_out_of_fold_parts():
    """Two seeds of three folds: each id is held out once a seed, so its mean is over the two seeds."""
    ids = [f"{number:02d}" for number in range(9)]
    whole = {seed: random_predictions(ids, seed) for seed in (0, 1)}
    parts = [whole[seed].loc[ids[fold::3][::-1]] for seed in (0, 1) for fold in range(3)]
    pooled = average(parts).loc[ids]
    np.testing.assert_allclose(pooled, (whole[0].astype(float) + whole[1]) / 2, rtol=1e-12)


def test_average_does_not_lose_precision_over_many_frames():
    frames = [predictions(["a"], np.array([[0.1, 0.9]]), ["x", "y"])] * 10_000
    assert average(frames).loc["a", "x"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_places_of_an_experiment():
    folder = ExperimentDir(Path("runs/digits"))
    run = folder.run(RunKey("uniform", 3, 1))
    assert folder.config == Path("runs/digits/experiment.yaml")
    assert folder.folds == Path("runs/digits/folds.csv")
    assert folder.policy("uniform") == Path("runs/digits/uniform")
    assert run.path == Path("runs/digits/uniform/seed3/fold1")
    assert [path.name for path in (run.history, run.rates, run.weights, run.oof, run.test)] == [
        "history.jsonl",
        "rates.npz",
        "weights.safetensors",
        "oof.parquet",
        "test.parquet",
    ]
    assert str(RunKey("uniform", 3, 1)) == "uniform seed 3 fold 1"


def test_record_of_a_run(tmp_path):
    run = RunDir(tmp_path / "uniform" / "seed0" / "fold0")
    assert not run.begun
    record = RunRecord(status="running", policy="uniform", seed=0, fold=0)
    run.write(record)
    assert (run.begun, run.record, run.record.key) == (True, record, RunKey("uniform", 0, 0))
    run.write(record.with_fields(status="finished", scores={"macro F1": 0.1 + 0.2}))
    assert run.record.scores == {"macro F1": 0.1 + 0.2}
    stored = json.loads((run.path / "run.json").read_text())
    assert len(stored.pop("digest")) == 64
    assert stored == {
        "status": "finished",
        "policy": "uniform",
        "seed": 0,
        "fold": 0,
        "scores": {"macro F1": 0.1 + 0.2},
    }


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"status": "finished"}', '{"policy": "a", "seed": 0, "fold": 0, "steps": "many"}', "\xff"],
)
def test_a_damaged_record_says_what_to_do(tmp_path, text):
    run = RunDir(tmp_path)
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    message = refusal_of(lambda: run.record)
    assert message.startswith(f"{tmp_path}/run.json is damaged (")
    assert message.endswith(f"); {TRAINED_ANEW}")


def test_the_mean_may_be_asked_for_in_an_order_and_leaves_out_other_rows():
    first = predictions(["a", "b"], np.array([[1.0, 0.0], [0.5, 0.5]]), ["x", "y"])
    second = predictions(["c", "b"], np.array([[0.25, 0.75], [0.0, 1.0]]), ["x", "y"])[["y", "x"]]
    made = average([first, second], ["c", "gone", "b"])
    assert made.index.tolist() == ["c", "b"]
    assert made.index.name == "id"
    assert made.to_numpy().tolist() == [[0.25, 0.75], [0.25, 0.75]]
    assert made.to_numpy().dtype == np.float64
    assert first.to_numpy().tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_predictions_in_order_are_not_copied_where_they_have_it():
    frame = predictions(["a", "b"], np.array([[1.0, 0.0], [0.5, 0.5]]), ["x", "y"])
    assert np.shares_memory(in_order(frame, ["a", "b"]).to_numpy(), frame.to_numpy())
    assert in_order(frame, ["b", "a"])["x"].tolist() == [0.5, 1.0]
    assert in_order(frame, ["b"]).index.tolist() == ["b"]


# Whole


def finished_run(folder, **fields) -> RunDir:
    run = RunDir(folder / "uniform/seed0/fold1")
    run.path.mkdir(parents=True)
    for file in (run.weights, run.rates, run.history):
        file.write_bytes(file.name.encode())
    write_predictions(random_predictions(["a", "b"]), run.oof)
    write_predictions(random_predictions(["c"]), run.test)
    record = RunRecord(status="finished", policy="uniform", seed=0, fold=1, files=run.digests())
    run.write(record.with_fields(**fields))
    return run


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "oof.parquet", "test.parquet", "rates.npz", "history.jsonl"]
)
def test_a_file_that_is_not_what_the_run_wrote(tmp_path, name):
    run = finished_run(tmp_path)
    file = run.path / name
    assert run.checked(file) == file
    assert (run.damaged(), run.is_whole(file), run.left(file)) == ([], True, True)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert (run.damaged(), run.is_whole(file)) == ([file], False)
    message = refusal_of(run.checked, file)
    assert message.startswith(f"{file} is damaged (its content is not what was written); ")
    assert ("with the saved weights" if file.suffix == ".parquet" else "remove the run's folder") in message
    file.unlink()
    assert refusal_of(run.checked, file).startswith(f"{file} is missing; ")
    assert (run.damaged(), run.left(file)) == ([file], True)


def test_a_file_that_the_run_did_not_leave(tmp_path):
    run = finished_run(tmp_path)
    run.learning.write_bytes(b"of another run")
    assert (run.left(run.learning), run.damaged()) == (False, [])
    assert refusal_of(run.checked, run.learning).startswith(f"{run.learning} is damaged ")


def test_a_run_without_predictions_is_finished_where_weights_can_make_them(tmp_path):
    run = finished_run(tmp_path)
    run.oof.unlink()
    assert run.finished
    run.write(run.record.with_fields(files={}))  # an earlier version's
    assert not run.finished
    run.write(run.record.with_fields(files=run.digests()))
    run.weights.unlink()
    assert not run.finished


def test_runs_of_earlier_versions_are_read_without_a_check(tmp_path):
    run = finished_run(tmp_path)
    record = {name: value for name, value in run.record.model_dump(exclude_unset=True).items() if name != "files"}
    (run.path / "run.json").write_text(json.dumps(record))
    run.weights.write_bytes(b"anything")
    assert (run.record.files, run.finished, run.damaged()) == ({}, True, [])
    assert run.checked(run.weights) == run.weights
    assert run.read_oof().index.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("before", "after"),
    [('"finished"', '"finish3d"'), ('"digest"', '"digesT"'), ('"fold": 1', '"fold": 3'), ('"files"', '"filez"')],
)
def test_a_record_with_another_character_is_told(tmp_path, before, after):
    run = finished_run(tmp_path)
    file = run.path / "run.json"
    file.write_text(file.read_text().replace(before, after))
    assert (
        refusal_of(lambda: run.record)
        == f"{file} is damaged (its content is not what was written); {TRAINED_ANEW}"
    )


def test_the_record_of_another_run_is_told(tmp_path):
    run = finished_run(tmp_path)
    other = RunDir(tmp_path / "uniform/seed0/fold2")
    other.path.mkdir()
    (other.path / "run.json").write_bytes((run.path / "run.json").read_bytes())
    assert refusal_of(lambda: other.record) == (
        f"{other.path}/run.json is of another run (uniform seed 0 fold 1) than its folder; {TRAINED_ANEW}"
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[0.5, 0.5, 0], [0.5, np.nan, 0]], "not all of its values are probabilities"),
        ([[0.5, 0.5, 0], [0.5, np.inf, 0]], "not all of its values are probabilities"),
        ([[0.5, 0.5, 0], [1.5, 0, 0]], "not all of its values are probabilities"),
        ([[0.5, 0.5, 0], [-0.5, 0, 0]], "not all of its values are probabilities"),
        ([[0.5, 0.5, 0]] * 3, "it has a twice"),
    ],
)
def test_predictions_that_cannot_be(tmp_path, values, reason):
    """Without a digest, too."""
    write_predictions(
        predictions(["a", "b", "a"][: len(values)], np.array(values), CLASSES), tmp_path / "oof.parquet"
    )
    assert refusal_of(read_predictions, tmp_path / "oof.parquet") == (
        f"{tmp_path}/oof.parquet is damaged ({reason}); {TRAINED_ANEW}"
    )
