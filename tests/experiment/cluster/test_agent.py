"""What a worker of Ray does before and around a task: the board's answer, the clock, what is kept on a node."""

import os
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="Ray has no wheel here")

from kit.experiment.cluster import agent, board

OPEN = {"closed": False, "stop": 0, "saves": 0}
DRIVER = agent.Driver("another", "/nowhere", "/nowhere")
PARCEL = agent.Parcel("0", None)
CALL = agent.Call(7, "m:f", b"", PARCEL, PARCEL, DRIVER, None, None, 1, 1, False)


class Answering:
    """A board whose method `begin` answers as it is told to, one after the other; None is no answer in time."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0
        self.begin = SimpleNamespace(remote=self._remote)

    def _remote(self, number, node, host):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else None
        return SimpleNamespace(future=lambda: SimpleNamespace(result=lambda seconds: self._result(answer)))

    @staticmethod
    def _result(answer):
        if answer is None:
            raise TimeoutError
        return answer


@pytest.fixture(autouse=True)
def _worker(monkeypatch):
    context = SimpleNamespace(get_node_id=lambda: "n")
    monkeypatch.setattr(agent.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(agent, "BEGIN_SECONDS", 0.5)


def test_where_nobody_says_that_a_task_may_begin_it_does_not():
    silent = Answering()
    assert agent.carry_out(CALL, silent).how == "unheard"
    assert silent.asked > 1, "it is asked again"
    assert agent.carry_out(CALL, Answering(OPEN | {"closed": True, "now": 1.0})).how == "unbegun"
    assert agent.carry_out(CALL, Answering(None, {}, OPEN | {"closed": True, "now": 1.0})).how == "unbegun"


def test_the_drivers_clock_is_ahead_of_this_nodes_by_what_the_board_says():
    before = time.monotonic()
    told = agent._permission(Answering(None, OPEN | {"now": 5000.0}), 7, "host")
    after = time.monotonic()
    assert 5000.0 - after <= told["ahead"] <= 5000.0 - before


def test_a_board_that_begins_anew_lets_nothing_begin_until_it_is_told():
    anew = board.Board()
    assert anew.begin(1, "n", "host") == {}
    assert anew.exchange(OPEN | {"now": 100.0}, []) == ([], {})
    assert anew.begin(1, "n", "host")["closed"] is False
    anew.exchange(OPEN | {"closed": True, "now": 101.0}, [])
    assert anew.begin(2, "n", "host")["closed"] is True


def test_the_boards_clock_goes_on_between_two_words_of_the_driver(monkeypatch):
    clock = [10.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: clock[0])
    mine = board.Board()
    mine.exchange(OPEN | {"now": 100.0}, [])
    clock[0] += 8.0
    assert mine.begin(1, "n", "host")["now"] == 108.0


def aged(path, days):
    moment = time.time() - days * 86400
    os.utime(path, (moment, moment))


def test_what_is_in_use_is_kept_on_a_node_and_the_rest_removed_after_a_while(tmp_path):
    for name in ("old", "works", "marked"):
        run = tmp_path / "outputs" / name / "runs" / "a"
        run.mkdir(parents=True)
        (run / "checkpoint.pt").touch()
        for path in (run / "checkpoint.pt", run, run.parent, run.parent.parent):
            aged(path, 20)
    aged(tmp_path / "outputs" / "works" / "runs" / "a" / "checkpoint.pt", 3)
    agent._mark_used([tmp_path / "outputs" / "marked", tmp_path / "none"])
    agent._tidy(tmp_path)
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["marked", "works"]


def test_what_a_process_said_before_it_ended_is_heard(tmp_path):
    package = tmp_path / "kit" / "experiment" / "cluster"
    package.mkdir(parents=True)
    words = "import sys; sys.stderr.write('first\\nImportError: no such library'); sys.exit(3)\n"
    (package / "server.py").write_text(words)
    server = agent._Server(tmp_path, CALL)
    assert server.process.wait() == 3
    assert server.lines(server.output) == [b"first", b"ImportError: no such library"]
    assert server.lines(server.output) is None
    assert server.lines(server.events) is None
    server.close()
