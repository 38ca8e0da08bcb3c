"""A train kernel that Kaggle stopped at its limit with three of five folds: what is finished comes home, the same
command pushes the others alone, and all pool as if trained in one go."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of
from support.small_kernels import asked, listed, rehearse

from kit.experiment.config import validate
from kit.experiment.options import RunOptions
from kit.experiment.run import run

SLUG, LIMIT = "tiny-train", 360  # seconds
KERNEL = Path("kernels/build") / SLUG
RUNS = [f"uniform/seed0/fold{fold}" for fold in range(5)]


def left(root: Path, runs: list[str], missing: list[str], exit_code: int | None) -> dict[str, bytes]:
    """What a kernel leaves of these runs."""
    home = root / "runs/tiny"
    files = [home / "experiment.yaml", home / "folds.csv"]
    files += [file for place in runs for file in sorted((home / place).iterdir()) if not file.name.startswith(".")]
    return listed({file.relative_to(root).as_posix(): file.read_bytes() for file in files}, missing, exit_code)


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """In the folder of the server, where there is one."""
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    competition = {"path": "data/colours", "slug": "colours", "train_images": "train/{id}.png"}
    write_competition(Path("data/colours"))
    content = experiment_content(Path("data/colours"), competition=competition, folds={"k": 5})
    content["training"]["epochs"] = 1
    Path("tiny.yaml").write_text(yaml.safe_dump(content | {"kernel": {"owner": "tester", "hours": LIMIT / 3600}}))
    return Path("tiny.yaml")


def test_what_was_stopped_is_fetched_and_the_rest_is_pushed_alone(server, kit, impatient, config):
    server.add_competition("colours", b"")
    only = [word for place in RUNS[:3] for word in ("--only", place)]
    code, told = kit("run", config, "--output", "one-go", *only)
    assert code == 0, told
    first = left(Path("one-go"), RUNS[:3], RUNS[3:], None)
    assert not Path("one-go/runs/tiny/uniform/seed0/fold3").exists()
    code, told = kit("run", config, "--output", "one-go")
    assert code == 0, told
    second = left(Path("one-go"), RUNS[3:], [], 0)
    code, told = kit("kernel", "build", config, "--kind", "train", "--notebook", "--name", "tiny-train")
    assert code == 0, told
    rehearse(KERNEL)

    def stopped(version):
        version.log.append({"stream_name": "stdout", "time": 0.99 * LIMIT, "data": "uniform seed 0 fold 3\n"})
        return "CANCEL_ACKNOWLEDGED", "", first, ""

    server.runner = stopped
    for _ in range(2):  # it is not pushed again, but waited for
        code, told = kit("kernel", "push", "--all")
        assert code == 3
        assert told.splitlines()[-1] == (
            f"tester/{SLUG} version 1: failed: timeout (Kaggle ended it at its limit of 0.1 h; 3 of 5 runs are "
            "finished); try fewer epochs, or fewer folds a kernel; kernel fetch brings home what is finished, "
            "then the same push pushes the others"
        )
    code, told = kit("kernel", "push", KERNEL)
    assert (code, told.splitlines()[-1]) == (
        1,
        f"error: tester/{SLUG} version 1 has finished 3 of 5 runs, which were not fetched yet: python -m kit "
        f"kernel fetch {KERNEL}, then the same push pushes the others",
    )

    code, told = kit("kernel", "fetch", "--all")
    assert code == 1
    assert "uniform: only some folds were run, so this is no score of the whole train table" in told
    assert told.splitlines()[-1] == (
        f"error: tester/{SLUG} version 1 ended with CANCEL_ACKNOWLEDGED (python -m kit kernel logs {KERNEL}); "
        f"missing: {RUNS[3]}, {RUNS[4]}; python -m kit kernel push {KERNEL} trains these alone, python -m kit run "
        "trains them here"
    )
    assert len(pd.read_parquet("runs/tiny/uniform/oof.parquet")) == 22  # of 36 rows, by 5 folds of 7 or 8

    server.runner = lambda version: ("COMPLETE", "", second, "")
    code, told = kit("kernel", "push", "--all")
    assert code == 0, told
    assert (
        f"tester/{SLUG} version 1 has finished its other runs; pushes what is left: {RUNS[3]}, {RUNS[4]}" in told
    )
    sent = [json.loads(request["text"])["cells"][0]["source"] for request in asked(server, "SaveKernel")]
    lines = [next(line for line in text.splitlines() if line.startswith("ONLY =")) for text in sent]
    assert [line.partition("  #")[0] for line in lines] == ["ONLY = []", f"ONLY = {RUNS[3:]}"]
    assert sent[0].replace(lines[0], "") == sent[1].replace(lines[1], "")

    code, told = kit("kernel", "fetch", "--all")
    assert code == 0, told
    for name in ("oof.parquet", "test.parquet", "scores.json"):
        mine, theirs = Path("runs/tiny/uniform") / name, Path("one-go/runs/tiny/uniform") / name
        assert mine.read_bytes() == theirs.read_bytes()

    code, told = kit("kernel", "push", "--all")
    assert code == 0, told
    assert len(asked(server, "SaveKernel")) == 2


def test_runs_that_were_trained_here_meanwhile_are_not_pushed(server, kit, impatient, config, monkeypatch):
    """Nothing is left of the version then."""
    from kit.kaggle.kernel import push as pushing
    from kit.kaggle.kernel.folder import KernelFolder

    server.add_competition("colours", b"")
    assert kit("kernel", "build", config, "--kind", "train")[0] == 0
    rehearse(KERNEL)
    server.runner = lambda version: ("COMPLETE", "", listed({"a": b"1"}, RUNS[3:], 1), "")
    assert kit("kernel", "push", "--all")[0] == 3
    folder = KernelFolder(KERNEL)
    folder.write_fetched({"version": 1, "missing": RUNS[3:]})
    assert pushing.left_over(folder, ".") == RUNS[3:]
    code, told = kit("run", config, *(word for place in RUNS[3:] for word in ("--only", place)))
    assert code == 0, told
    assert pushing.left_over(folder, ".") == []
    assert pushing.left_over(folder, "elsewhere") == RUNS[3:]
    assert kit("kernel", "push", "--all") == (0, f"{KERNEL}: all of its runs are here\n")
    assert kit("kernel", "push", KERNEL) == (
        1,
        f"error: {KERNEL}: all of its runs are here; there is nothing to push\n",
    )
    folder.write_fetched({"version": 2, "missing": RUNS[3:]})  # not of what was pushed last
    assert pushing.left_over(folder, ".") is None


def test_what_is_no_run(config, kit):
    code, told = kit("run", config, "--only", "uniform/seed0/fold5")
    runs = ", ".join(RUNS)
    assert (code, told) == (
        1,
        f"error: --only uniform/seed0/fold5: no run of this experiment, which has {runs}\n",
    )
    assert not Path("runs").exists()


def test_a_comparison_takes_all_runs(config):
    from kit.comparison.compare import compare

    content = yaml.safe_load(config.read_text())
    policies = {"uniform": {"lr": 0.1}, "other": {"lr": 0.2}}
    experiment = validate(content | {"policies": policies}, "test")
    assert refusal_of(compare, experiment, RunOptions(only=RUNS[:1])) == (
        "only: a comparison takes all runs of its policies; leave it out, or use kit.run"
    )
    assert refusal_of(run, experiment, RunOptions(only=["x"])).startswith("--only x: no run of this experiment")
