"""Tasks on a real cluster of Ray: results, errors, what a task finds around it."""

import hashlib
import time
from contextlib import suppress

import pytest
from support import cluster_tasks as tasks
from support import torch_tasks
from support.clusters import joined, ray_nodes, until
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.experiment.cluster.site import Needs

pytest.importorskip("ray", reason="Ray has no wheel here")


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """Two nodes of one core, on whose path another kit lies first."""
    other = tmp_path_factory.mktemp("other")
    (other / "kit").mkdir()
    (other / "kit" / "__init__.py").write_text("raise RuntimeError('another kit')")
    path = {"env_vars": {"PYTHONPATH": str(other)}}
    with ray_nodes([path, path | {"num_gpus": 2}]) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def cluster(two_nodes, tmp_path_factory, lines):
    with joined(two_nodes, tmp_path_factory.mktemp("cache"), lines.append) as mine:
        yield mine


@pytest.fixture
def parcel(cluster):
    return cluster.parcel({"config.yaml": b"name: a\n"})


def test_each_item_gives_its_result(cluster, parcel):
    made = sorted(cluster.run(tasks.double, range(12), Needs(), parcel))
    assert made == [2 * number for number in range(12)]


def test_items_are_taken_as_there_is_room(cluster, parcel):
    taken = []

    def items():
        for number in range(60):
            taken.append(number)
            yield number

    most = 0
    for number, _ in enumerate(cluster.run(tasks.double, items(), Needs(), parcel)):
        most = max(most, len(taken) - number)
    assert len(taken) == 60
    assert most <= 2 * 2 + 2


def test_what_a_task_finds_around_it(cluster, parcel, tmp_path):
    found = list(cluster.run(tasks.surroundings, range(3), Needs(threads=3), parcel))
    assert len({each["pid"] for each in found}) == 3, "a fresh process each"
    for each in found:
        assert each["environment"] == {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}
        assert each["parcel"] == {"config.yaml": b"name: a\n"}
        assert parcel.digest in str(each["site"].parcel)
        assert "/parcels/" in each["kit"], "the kit that was sent, not the one on the node's path"
        assert (each["site"].threads, each["site"].again, each["site"].shared) == (3, False, False)
        assert not each["imported"], "nothing is imported that no task asked for"


@pytest.mark.parametrize(("gpus", "seen"), [(1, {"0", "1"}), (0.5, {"0", "1"}), (2, {"0,1"})])
def test_a_task_sees_the_gpus_that_it_was_given(cluster, parcel, gpus, seen):
    found = list(cluster.run(tasks.surroundings, range(2), Needs(gpus=gpus), parcel))
    assert {each["environment"]["CUDA_VISIBLE_DEVICES"] for each in found} <= seen


def test_torch_computes_with_the_threads_that_were_stated(cluster, parcel):
    assert list(cluster.run(torch_tasks.threads, [0], Needs(threads=3), parcel)) == [3]


def test_a_parcel_that_was_tampered_with_is_unpacked_anew(two_nodes, tmp_path):
    files = {"a.txt": b"as it was sent"}
    for _ in range(2):
        with joined(two_nodes, tmp_path) as mine:
            (found,) = mine.run(tasks.surroundings, [0], Needs(), mine.parcel(files))
        assert found["parcel"] == files
        (found["site"].parcel / "a.txt").write_bytes(b"something else")


def test_lines_of_tasks_are_told_here(cluster, parcel, lines):
    list(cluster.run(tasks.talk, [7, 8], Needs(), parcel))
    for number in (7, 8):
        assert {f"said {number}", f"printed {number}", f"told {number}"} <= set(lines)


def test_the_first_error_is_raised_when_those_under_way_have_ended(cluster, parcel, tmp_path):
    names = ["a", "bad", *(f"later{number}" for number in range(20))]
    made = []
    with pytest.raises(KitError, match=r"^bad: is refused$"):  # noqa: PT012
        for each in cluster.run(tasks.refuse, [f"{tmp_path}/{name}" for name in names], Needs(), parcel):
            made.append(each)
    begun = {path.name for path in tmp_path.iterdir()}
    assert begun == {"bad", *made}, "what had begun was yielded, and the others did not begin"
    assert len(begun) < 10
    assert (tmp_path / "bad").read_text() == "x", "our own errors are not tried again"
    assert len(cluster.look(tasks.node_report, None, Needs(), parcel)) == 2, "and the cluster is as it was"


def test_a_fault_of_the_program_tells_where_it_was(cluster, parcel, tmp_path):
    with pytest.raises(ZeroDivisionError, match="fault") as caught:
        list(cluster.run(tasks.refuse, [f"{tmp_path}/fault"], Needs(), parcel))
    assert "cluster_tasks.py" in "".join(caught.value.__notes__)
    assert (tmp_path / "fault").read_text() == "x"


@pytest.mark.parametrize("what", ["child", "worker"])
def test_a_killed_process_is_begun_again(cluster, parcel, lines, what):
    assert list(cluster.run(tasks.die_once, [what], Needs(), parcel)) == [True]
    told = [line for line in lines if line.startswith(f"{what}: its process")]
    assert len(told) == 1
    assert told[0].endswith("it is begun again (1 of 3)")


def test_a_process_that_is_always_killed_is_given_up(cluster, parcel):
    message = refusal_of(
        lambda: list(cluster.run(tasks.die, ["x"], Needs(), parcel, name=lambda item: f"run {item}"))
    )
    assert message.startswith("run x: its process on ")
    assert "was killed by signal 9, as the system does when memory runs out, the 4th time; " in message


def test_several_processes_of_one_task_find_each_other(cluster, parcel, tmp_path):
    assert list(cluster.run(tasks.ranks, [str(tmp_path)], Needs(processes=3), parcel)) == ["0"]
    ranks = sorted(path.name.split("-") for path in tmp_path.iterdir())
    assert [rank[:2] for rank in ranks] == [["0", "0"], ["1", "1"], ["2", "2"]]
    assert len({rank[2] for rank in ranks}) == 1, "one port"


def test_where_one_of_several_processes_is_killed_all_begin_again(cluster, parcel):
    assert list(cluster.run(tasks.rank_one_dies, ["x"], Needs(processes=2), parcel)) == ["0"]


def test_whether_nodes_share_a_folder_is_found_out(cluster, parcel, tmp_path):
    reports = cluster.look(tasks.node_report, None, Needs(), parcel, output=tmp_path)
    assert cluster.shared
    assert sorted(each.kind for each in reports.values()) == ["0", "1"]
    (found,) = cluster.run(tasks.surroundings, [0], Needs(), parcel)
    assert (found["site"].output, found["site"].shared) == (tmp_path, True)


def test_without_a_shared_folder_each_node_has_its_own(cluster, parcel, tmp_path, monkeypatch):
    import kit.experiment.cluster.cluster as module

    probe = module._probe
    monkeypatch.setattr(module, "_probe", lambda output: probe(output) | {"secret": "another"})
    cluster.look(tasks.node_report, None, Needs(), parcel, output=tmp_path)
    assert not cluster.shared
    (found,) = cluster.run(tasks.surroundings, [0], Needs(), parcel)
    assert not found["site"].shared
    assert found["site"].output != tmp_path


def test_items_of_one_value_run_on_one_kind_of_node(cluster, parcel):
    cluster.look(tasks.node_report, None, Needs(), parcel)
    items = [(value, number) for number in range(6) for value in "ab"]
    made = dict.fromkeys("ab", None)
    for value in "ab":
        cluster.kinds.pop(value, None)
    both = cluster.run(tasks.kind_here, items, Needs(), parcel, kind_of=lambda item: item[0])
    made = {(item[0], kind) for item, kind in both}
    assert len(made) == 2, "each value saw one kind alone"
    assert {kind for _, kind in made} == {"0", "1"}, "and both kinds were used"


def test_a_node_with_too_little_is_left_out(cluster, parcel):
    message = refusal_of(lambda: cluster.look(tasks.node_report, None, Needs(gpus=3), parcel))
    assert "it has 0 GPUs, a task takes 3" in message
    assert "it has 2 GPUs, a task takes 3" in message


def test_a_look_whose_process_was_killed_is_begun_again(cluster, parcel, lines, tmp_path):
    assert len(cluster.look(tasks.look_that_dies_once, str(tmp_path), Needs(), parcel)) == 2
    assert len([line for line in lines if line.endswith("; it is looked at again (1 of 3)")]) == 2


def test_a_look_whose_process_is_always_killed_leaves_the_node_out(cluster, parcel):
    message = refusal_of(lambda: cluster.look(tasks.look_that_dies_once, "", Needs(), parcel))
    killed = "the process that looked at it was killed by signal 9, as the system does when memory runs out"
    assert f"{killed}, the 4th time" in message


def test_a_worker_whose_task_was_taken_back_is_still_answered(cluster, tmp_path):
    import ray

    @ray.remote(num_cpus=0)
    class Answers:
        def one(self):
            return 1

    @ray.remote(max_retries=0)
    def ask(answers, times, begun):
        begun.touch()
        for _ in range(times):
            answers.one.remote().future().result(10)
        return 1

    answers = Answers.remote()
    for number in range(10):
        begun = tmp_path / str(number)
        asking = ask.remote(answers, 300, begun)
        until(begun.exists)
        time.sleep(0.001 * number)
        cluster.take_back(asking)
        with suppress(ray.exceptions.RayError):
            ray.get(asking, timeout=60)
        assert ray.get(ask.remote(answers, 1, begun), timeout=60) == 1


def test_a_parcel_is_known_by_its_content(cluster):
    one, same, other = (cluster.parcel({"a": content}) for content in (b"1", b"1", b"2"))
    assert one.digest == same.digest != other.digest
    assert len(one.digest) == len(hashlib.sha256(b"").hexdigest())
