"""What run.json says of a run that keeps no checkpoints and does not come to its end."""

import json

import pytest

from kit.core.errors import KitError
from kit.core.runs import ExperimentDir, RunKey, RunRecord
from kit.core.stopping import OUT_OF_TIME, Interrupted, Stopped
from kit.experiment.train_run import beginning_anew

KEY = RunKey("ridge", 0, 1)


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (KitError("no\nroom"), KitError, {"status": "failed", "error": "no room"}),
        (ValueError("odd"), ValueError, {"status": "failed", "error": "odd"}),
        (Stopped("stopped here", OUT_OF_TIME), Stopped, {"status": "stopped"}),
        (Interrupted(130), Interrupted, {"status": "stopped"}),
    ],
)
def test_what_ends_it_is_written_down_and_raised(tmp_path, error, raised, said):
    run = ExperimentDir(tmp_path).run(KEY)
    record = RunRecord(status="running", policy="ridge", seed=0, fold=1, kind="head")
    seen = []

    def work() -> None:
        with beginning_anew(KEY, run, record, lambda: None):
            seen.append(run.record.status)
            raise error

    with pytest.raises(raised) as found:
        work()
    assert seen == ["running"]
    stored = json.loads((run.path / "run.json").read_text())
    assert {name: stored[name] for name in ("status", "error") if name in stored} == said
    assert isinstance(error, KitError) == str(found.value).startswith(f"{KEY}: ")


def test_nothing_is_written_where_the_run_is_anothers_by_now(tmp_path):
    run = ExperimentDir(tmp_path).run(KEY)
    record, mine = RunRecord(status="running", policy="ridge", seed=0, fold=1), [True]

    def need() -> None:
        if not mine[0]:
            raise KitError("it is another's")

    def work() -> None:
        with beginning_anew(KEY, run, record, need):
            mine[0] = False
            raise KitError("odd")

    with pytest.raises(KitError, match="ridge seed 0 fold 1: odd"):
        work()
    assert run.record.status == "running"
    with pytest.raises(KitError, match=r"^it is another's"):  # before it began
        work()
