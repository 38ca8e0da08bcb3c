"""Push, wait, status and logs, through the real client and the command line, against Kaggle on 127.0.0.1."""

import itertools
import json
import shutil
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.fake_kaggle import answer, drop, instead
from support.kaggle_setting import no_pause
from support.refusals import refusal_of
from support.small_kernels import REF, SLUG, asked, dataset, listed, pushed, rehearse, write_kernel

from kit.core.errors import KitError
from kit.kaggle import datasets
from kit.kaggle.answers import PushedKernel
from kit.kaggle.client import Kaggle
from kit.kaggle.datasets import dataset_folder, upload, wait_for_dataset
from kit.kaggle.kernel import push as pushing
from kit.kaggle.kernel import sessions
from kit.kaggle.kernel.ended import EndedSession
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.push import push, push_all, pushed_kernel
from kit.kaggle.kernel.sessions import follow_log, wait
from kit.kaggle.retry import Refused

LOOK = (
    f"look at https://www.kaggle.com/code/{REF}; where it is there, this token may not see it: make a new API "
    f"token on kaggle.com/settings; where it was deleted, remove kernels/build/{SLUG}/push.json, and push it anew"
)
OVER = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")


# What is pushed


def test_what_arrives_on_kaggle_and_what_is_remembered(server, kaggle, said):
    server.known_sources |= {"colours", "tester/weights", "tester/other-kernel", "a/b/pyTorch/c/1"}
    path = write_kernel(
        enable_gpu=True,
        machine_shape="NvidiaTeslaT4",
        competition_sources=["colours"],
        kernel_sources=["tester/other-kernel"],
        model_sources=["a/b/pyTorch/c/1"],
    )
    kernel = push(path, kaggle, say=said.append)
    assert kernel == PushedKernel("tester", SLUG, 1, f"https://www.kaggle.com/code/{REF}")
    (request,) = asked(server, "SaveKernel")
    wanted = {
        "slug": REF,
        "newTitle": "small train fold 0",
        "text": "print('hello')\n",
        "language": "python",
        "kernelType": "script",
        "isPrivate": True,
        "enableGpu": True,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "sessionTimeoutSeconds": 1800,
        "competitionDataSources": ["colours"],
        "kernelDataSources": ["tester/other-kernel"],
        "modelDataSources": ["a/b/pyTorch/c/1"],
        "dockerImagePinningType": "latest",
    }
    assert {name: request.get(name) for name in wanted} == wanted
    record = json.loads((path / "push.json").read_text())
    assert datetime.now(UTC) - datetime.fromisoformat(record.pop("when")) < timedelta(minutes=1)
    assert record == {
        "owner": "tester",
        "slug": SLUG,
        "version": 1,
        "url": f"https://www.kaggle.com/code/{REF}",
        "digest": KernelFolder(path).digest,
        "build": json.loads((path / "build.json").read_text()),
        "only": [],
    }
    assert KernelFolder(path).pushed_record == KernelFolder(path).record
    assert said == [
        "0.0 of 30.0 GPU hours of this week are used",
        f"pushed {REF} version 1: https://www.kaggle.com/code/{REF}",
    ]
    assert pushed_kernel(path) == kernel


def test_a_push_again_is_a_new_version(server, kaggle, said):
    path = write_kernel(enable_internet=True)
    for _ in range(2):
        push(path, kaggle, say=said.append)
    assert [request["enableInternet"] for request in asked(server, "SaveKernel")] == [True, True]
    assert pushed_kernel(path).version == 2
    assert refusal_of(pushed_kernel, write_kernel("other-kernel")) == (
        "kernels/build/other-kernel was not pushed yet: python -m kit kernel push kernels/build/other-kernel"
    )


def test_the_owner_is_who_is_signed_in(server, kaggle, said, monkeypatch):
    path = write_kernel(owner="")
    assert push(path, kaggle, say=said.append).owner == "tester"
    assert asked(server, "SaveKernel")[0]["slug"] == REF
    other = write_kernel("other-kernel", owner="somebody")
    assert refusal_of(push, other, kaggle) == "kernel.owner is somebody, but the credentials are those of tester"
    kaggle._api.config_values.pop("username")
    assert refusal_of(push, path, kaggle) == (
        "kernel.owner: missing; the credentials do not tell the user, so name yours there"
    )
    assert len(asked(server, "SaveKernel")) == 1


def test_no_built_kernel(server, kit):
    write_kernel()
    assert kit("kernel", "push", "elsewhere") == (
        1,
        f"error: elsewhere is no built kernel; there are kernels/build/{SLUG}\n",
    )
    code, told = kit("kernel", "push")
    assert (code, told) == (
        1,
        "error: name the folders of built kernels, or give --all for the train kernels in kernels/build\n",
    )
    shutil.rmtree("kernels")
    code, told = kit("kernel", "push", "--all")
    assert told == (
        "error: no train kernel was built here; make some with: python -m kit kernel build CONFIG --kind train\n"
    )


# Rehearsals


def test_only_what_was_rehearsed_is_pushed(server, kit):
    path = write_kernel(rehearsed=False)
    code, told = kit("kernel", "push", path)
    assert (code, told) == (
        1,
        f"error: {path} was not rehearsed yet: python -m kit kernel rehearse {path}, or push with --unrehearsed\n",
    )
    rehearse(path)
    (path / f"{SLUG}.py").write_text("print('built again')\n")
    code, told = kit("kernel", "push", path)
    assert code == 1
    assert told.startswith(f"error: {path} was not rehearsed since it was built: ")
    rehearse(path, passed=False)
    code, told = kit("kernel", "push", path)
    assert (code, told) == (
        1,
        f"error: {path} failed its rehearsal (exit code): mend, build and python -m kit kernel rehearse {path}, "
        "or push with --unrehearsed\n",
    )
    assert server.kernels == {}
    assert server.requests == []
    code, told = kit("kernel", "push", path, "--unrehearsed")
    assert code == 0, told
    assert server.kernels[REF][0].source == "print('built again')\n"


def test_the_rehearsal_of_a_sibling_counts(server, kaggle, said):
    path = write_kernel(rehearsed=False)
    stranger = write_kernel("another-kernel", record={"family": "another"})
    assert "was not rehearsed yet" in refusal_of(push, path, kaggle)
    write_kernel("small-train-fold-1")
    assert push(path, kaggle, say=said.append).version == 1
    rehearse(stranger, passed=False)
    assert push(path, kaggle, say=said.append).version == 2
    rehearse(path, passed=False)
    assert "failed its rehearsal (exit code)" in refusal_of(push, path, kaggle)  # its own counts more


def test_how_it_was_made_does_not_count(server, kaggle, said):
    """The head of the code names the command; another command may make the same kernel."""
    path = write_kernel(rehearsed=False)
    (path / f"{SLUG}.py").write_text('"""Made so. \\"\\"\\"\n"""\n\nprint("hello")\n')
    rehearse(path)
    (path / f"{SLUG}.py").write_text('"""Made in another way."""\n\nprint("hello")\n')
    assert push(path, kaggle, say=said.append).version == 1
    (path / f"{SLUG}.py").write_text('"""Made so."""\n\nprint("good bye")\n')
    assert "was not rehearsed since it was built" in refusal_of(push, path, kaggle)


def test_a_kernel_with_network_cannot_pass_a_rehearsal_that_needs_it(server, kaggle):
    path = write_kernel(rehearsed=False, enable_internet=True)
    rehearse(path, passed=False)
    assert "(exit code); it may use the network on Kaggle, which a rehearsal has not: " in refusal_of(
        push, path, kaggle
    )


def test_all_that_lack_a_rehearsal_are_told_before_any_is_pushed(server, kit):
    write_kernel("aaa-train-fold-0", record={"family": "a"})
    for name in ("bbb-train-fold-0", "ccc-train-fold-0"):
        write_kernel(name, rehearsed=False, record={"family": name})
    code, told = kit("kernel", "push", "--all")
    assert code == 1
    assert [line.split(" was ")[0] for line in told.splitlines()] == [
        "error: kernels/build/bbb-train-fold-0",
        "error: kernels/build/ccc-train-fold-0",
    ]
    assert server.kernels == {}


# What is damaged


@pytest.mark.parametrize(
    ("name", "content", "command", "message"),
    [
        ("push.json", "{", "status", "push.json is damaged (Expecting property name"),
        ("push.json", '{"owner": "tester"}', "status", "push.json is damaged (it has no slug, version, url"),
        ("kernel-metadata.json", "{}", "push", "kernel-metadata.json is damaged (it has no id, title"),
        ("build.json", "{}", "push", "build.json is damaged ("),
        ("rehearsal.json", "[", "push", "rehearsal.json is damaged ("),
    ],
)
def test_a_damaged_file(server, kit, name, content, command, message):
    path = write_kernel()
    (path / name).write_text(content)
    code, told = kit("kernel", command, path)
    assert (code, told[: len("error: ")], len(told.splitlines())) == (1, "error: ", 1)
    assert f"{path / message}" in told
    mend = "build the kernel again" if name in ("build.json", "kernel-metadata.json") else "remove it"
    assert told.endswith(f"; {mend}\n")


def test_no_code_file(server, kit):
    path = write_kernel()
    (path / f"{SLUG}.py").unlink()
    assert kit("kernel", "push", path, "--unrehearsed") == (
        1,
        f"error: {path}/{SLUG}.py is not there; build the kernel again\n",
    )
    (path / "kernel-metadata.json").unlink()
    assert kit("kernel", "push", path)[1] == (
        f"error: {path} is no built kernel; make one with: python -m kit kernel build CONFIG\n"
    )


# Kernels whose outputs are attached


def test_attached_kernels_have_to_end_well(server, kaggle, said):
    train = write_kernel("small-train-fold-1")
    push(train, kaggle, say=said.append)
    server.script_status("tester/small-train-fold-1", ["RUNNING", "RUNNING", "COMPLETE"])
    path = write_kernel(kernel_sources=["tester/small-train-fold-1"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sessions, "POLL", 0.01)
        said.clear()
        push(path, kaggle, say=said.append)
    assert said[0] == "tester/small-train-fold-1 version 1: RUNNING, 0 min"
    server.finish("tester/small-train-fold-1", "ERROR")
    assert refusal_of(push, path, kaggle) == (
        "tester/small-train-fold-1 version 1, whose outputs this kernel attaches, ended with ERROR; push that "
        "again first, or build this one without it (kernel.kernels)"
    )
    assert len(server.kernels[REF]) == 1


def test_an_attached_kernel_that_is_not_shown(server, kaggle, said, monkeypatch):
    """It may be another's, of which there is no folder here."""
    server.misbehave("GetKernel", instead({"metadata": {"currentVersionNumber": 3}}))
    server.misbehave("GetKernelSessionStatus", answer(403, "No"))
    monkeypatch.setattr(sessions, "GRACE", -1)
    message = refusal_of(push, write_kernel(kernel_sources=["another/kernel"]), kaggle)
    assert (
        "where another/kernel is not there, or not yours, build this kernel without it (kernel.kernels)" in message
    )
    assert "push.json" not in message


# Interrupted


def test_a_push_that_was_interrupted_is_not_repeated(server, kaggle, said, monkeypatch):
    path = write_kernel()
    with monkeypatch.context() as patched:
        patched.setattr(KernelFolder, "write_push", lambda self, record: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            push(path, kaggle, say=said.append)
    assert not (path / "push.json").exists()
    assert push(path, kaggle, say=said.append).version == 1
    assert said[-1].startswith(f"{REF} version 1 had arrived before the push was interrupted")
    assert pushed_kernel(path).version == 1
    assert push(path, kaggle, say=said.append).version == 2  # a push that is meant
    assert len(server.kernels[REF]) == 2


def test_a_push_that_was_refused_is_not_taken_for_one(server, kaggle, said):
    """It may have made a version, which lacks its sources."""
    path = write_kernel()
    server.misbehave("SaveKernel", instead({"versionNumber": 1, "error": "No"}, acted=True))
    assert "Kaggle says: No" in refusal_of(push, path, kaggle)
    assert push(path, kaggle, say=said.append).version == 2


def test_a_push_that_did_not_arrive_before_it_was_interrupted(server, kaggle, said, monkeypatch):
    path = write_kernel()
    with monkeypatch.context() as patched:
        patched.setattr(Kaggle, "push", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            push(path, kaggle, say=said.append)
    assert push(path, kaggle, say=said.append).version == 1
    assert len(asked(server, "SaveKernel")) == 1


# Datasets


def part_kernel(server, kaggle, fetched: bool = True) -> tuple[Path, list[str]]:
    """A train kernel of three folds whose first version finished one; its folder, and what is left."""
    path = write_kernel(record={"folds": [0, 1, 2]})
    (path / f"{SLUG}.py").write_text("# a kernel\nONLY = []  # filled in\nprint(ONLY)\n")
    rehearse(path)
    push(path, kaggle, say=no_pause)
    left = ["uniform/seed0/fold1", "uniform/seed0/fold2"]
    server.finish(REF, files=listed({"a": b"1"}, left, 1))
    if fetched:
        KernelFolder(path).write_fetched({"version": 1, "missing": left})
    return path, left


def test_what_is_left_of_a_version_is_pushed_alone(server, kaggle, said):
    path, left = part_kernel(server, kaggle)
    said.clear()
    assert push(path, kaggle, say=said.append).version == 2
    assert said == [
        f"{REF} version 1 has finished its other runs; pushes what is left: {left[0]}, {left[1]}",
        f"pushed {REF} version 2: https://www.kaggle.com/code/{REF}",
    ]
    assert asked(server, "SaveKernel")[1]["text"] == f"# a kernel\nONLY = {left}  # filled in\nprint(ONLY)\n"
    folder = KernelFolder(path)
    assert (folder.push["only"], folder.pushed_runs, folder.source) == (
        left,
        left,
        "# a kernel\nONLY = []  # filled in\nprint(ONLY)\n",
    )
    push(path, kaggle, say=said.append)  # while it runs: the same once more
    assert f"ONLY = {left}" in asked(server, "SaveKernel")[2]["text"]
    assert (folder.push["version"], folder.push["only"]) == (3, left)
    server.finish(REF, files=listed({"a": b"1"}, left[1:], 1))
    folder.write_fetched({"version": 3, "missing": left[1:]})
    push(path, kaggle, say=said.append)
    assert f"ONLY = {left[1:]}" in asked(server, "SaveKernel")[3]["text"]


def test_finished_runs_are_fetched_before_the_rest_is_pushed(server, kaggle):
    path, _ = part_kernel(server, kaggle, fetched=False)
    assert refusal_of(push, path, kaggle) == (
        f"{REF} version 1 has finished 1 of 3 runs, which were not fetched yet: python -m kit kernel fetch "
        f"{path}, then the same push pushes the others"
    )
    server.finish(REF, "ERROR", files={"a": b"1"})  # nothing is there to fetch
    assert push(path, kaggle, say=no_pause).version == 2
    assert "ONLY = []" in asked(server, "SaveKernel")[1]["text"]


def test_a_version_that_was_built_anew_is_pushed_whole(server, kaggle):
    path, _ = part_kernel(server, kaggle)
    (path / f"{SLUG}.py").write_text("# another\nONLY = []\n")
    rehearse(path)
    assert push(path, kaggle, say=no_pause).version == 2
    assert asked(server, "SaveKernel")[1]["text"] == "# another\nONLY = []\n"


def test_a_kernel_of_an_early_version_has_no_place_for_the_rest(server, kaggle):
    path, _ = part_kernel(server, kaggle)
    (path / f"{SLUG}.py").write_text("print('hello')\n")
    folder = KernelFolder(path)
    folder.write_push(folder.push | {"digest": folder.digest})
    rehearse(path)
    assert refusal_of(push, path, kaggle) == (
        f"{folder.code_file} was built by another version of the kit; build the kernel again"
    )
    assert len(asked(server, "SaveKernel")) == 1
    assert not folder.begun_push


def test_an_interrupted_push_of_the_rest_is_recognised_with_its_runs(server, kaggle, said, monkeypatch):
    path, left = part_kernel(server, kaggle)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(KernelFolder, "write_push", killed)
        with pytest.raises(KeyboardInterrupt):
            push(path, kaggle, say=no_pause)
    assert push(path, kaggle, say=said.append).version == 2
    assert len(asked(server, "SaveKernel")) == 2
    assert KernelFolder(path).push["only"] == left


def test_an_attached_dataset_is_waited_for(server, kit, impatient):
    Path("files").mkdir()
    Path("files/a.bin").write_bytes(b"a")
    dataset_folder(Path("files"), "tester/weights", "weights")
    server.dataset_statuses = ["BLOBS_RECEIVED"]
    Kaggle(wait=no_pause).upload_dataset(Path("files"), "first")
    server.datasets["tester/weights"].script.extend(["NOT_YET_PERSISTED", "NOT_YET_PERSISTED", "READY"])
    path = write_kernel(dataset_sources=["tester/weights"])
    code, told = kit("kernel", "push", path)
    assert code == 0, told
    assert told.splitlines()[:2] == [
        "waiting for the dataset tester/weights: BLOBS_RECEIVED",
        "waiting for the dataset tester/weights: NOT_YET_PERSISTED",
    ]
    assert server.kernels[REF][0].mounted_datasets == ["tester/weights"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("FAILED", "the dataset tester/weights is FAILED on Kaggle; upload it again"),
        ("", "there is no dataset tester/weights on Kaggle that tester may see; upload it first"),
        ("BLOBS_RECEIVED", "the dataset tester/weights is still BLOBS_RECEIVED after 0 minutes"),
    ],
)
def test_a_dataset_that_does_not_become_ready(server, kaggle, monkeypatch, status, message):
    monkeypatch.setattr(datasets, "PROCESSING", 0)
    if status:
        Path("files").mkdir()
        Path("files/a.bin").write_bytes(b"a")
        dataset_folder(Path("files"), "tester/weights", "weights")
        server.dataset_statuses = [status]
        kaggle.upload_dataset(Path("files"), "")
    path = write_kernel(dataset_sources=["tester/weights"])
    assert refusal_of(push, path, kaggle) == message
    assert server.kernels == {}


def test_code_that_is_too_large_travels_as_a_dataset_once(server, kit, impatient):
    path = write_kernel(dataset_sources=["tester/small-code"], record={"sha256": "1" * 64})
    (path / "code").mkdir()
    (path / "code" / "bundle.bin").write_bytes(b"the archive")
    dataset_folder(path / "code", "tester/small-code", "small code")
    server.dataset_statuses = ["BLOBS_RECEIVED", "READY"]
    code, told = kit("kernel", "push", path)
    assert code == 0, told
    assert told.splitlines()[:2] == [
        "uploading tester/small-code",
        "waiting for the dataset tester/small-code: BLOBS_RECEIVED",
    ]
    dataset = server.datasets["tester/small-code"]
    assert dataset.versions == [{"bundle.bin": b"the archive"}]
    assert dataset.request["isPrivate"] is True
    assert server.kernels[REF][0].mounted_datasets == ["tester/small-code"]

    code, told = kit("kernel", "push", path)
    assert code == 0, told
    assert "uploading" not in told
    assert len(dataset.versions) == 1

    record = KernelFolder(path).record
    KernelFolder(path).write_record(type(record)(**(vars(record) | {"sha256": "2" * 64})))
    (path / "code" / "bundle.bin").write_bytes(b"another archive")
    server.datasets["tester/small-code"].status = "BLOBS_RECEIVED"  # else it would be refused: one at a time
    server.datasets["tester/small-code"].script.extend(["BLOBS_RECEIVED", "READY"])
    code, told = kit("kernel", "push", path)
    assert code == 0, told
    assert server.datasets["tester/small-code"].versions[-1] == {"bundle.bin": b"another archive"}

    del server.datasets["tester/small-code"]  # by hand, on its page
    code, told = kit("kernel", "push", path)
    assert code == 0, told
    assert server.datasets["tester/small-code"].versions == [{"bundle.bin": b"another archive"}]


def test_a_new_version_is_ready_when_it_is_the_current_one(server, kaggle, said, monkeypatch):
    """Right after an upload Kaggle may still tell of the version before."""
    folder = dataset(first=b"1")
    upload(folder, kaggle)
    versions = iter([1, 1, 2])
    monkeypatch.setattr(kaggle, "dataset_version", lambda reference: next(versions))
    monkeypatch.setattr(datasets, "POLL", 0.01)
    upload(folder, kaggle, say=said.append)
    assert said == [
        "uploading tester/small-data",
        "waiting for the dataset tester/small-data: READY in an earlier version",
        "tester/small-data is READY",
    ]
    assert next(versions, None) is None


# Quota


def test_a_used_up_quota_stops_the_push(server, kit):
    server.gpu_quota = (30 * 3600, 30 * 3600)
    path = write_kernel(enable_gpu=True)
    assert kit("kernel", "push", path) == (
        1,
        "error: 30.0 of 30.0 GPU hours of this week are used; nothing was pushed. Wait for the next week, or "
        "build with kernel.accelerator=none\n",
    )
    assert server.kernels == {}
    code, _ = kit("kernel", "push", write_kernel("small-cpu-kernel"))
    assert code == 0


def test_a_quota_that_may_not_do_is_told(server, kit):
    server.gpu_quota = (29.9 * 3600, 30 * 3600)
    code, told = kit("kernel", "push", write_kernel(enable_gpu=True))
    assert code == 0
    assert told.startswith(
        "29.9 of 30.0 GPU hours of this week are used; the kernel may take up to 0.5 h\npushed tester/"
    )


# What Kaggle answers


def test_what_may_pass_is_tried_again(server, kaggle, said, waits):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.misbehave(
        "SaveKernel",
        answer(409, "Another version is being saved"),
        answer(429, "Slow down", {"Retry-After": "7"}),
        answer(429, "Slow down", {"Retry-After": later}),
        answer(429, "Slow down", {"Retry-After": "86400"}),
        answer(503, "Unavailable"),
    )
    assert push(write_kernel(), kaggle, say=said.append).version == 1
    assert len(asked(server, "SaveKernel")) == 6
    assert 0.75 <= waits[0] <= 1.25
    assert waits[1] == 7
    assert 27 < waits[2] <= 30
    assert waits[3] == 60  # no one waits for a day
    assert 12 <= waits[4] <= 20
    assert said[:2] == [
        f"pushing {REF}: Kaggle answers 409: Another version is being saved; again in 1 s (1 of 6 attempts)",
        f"pushing {REF}: Kaggle answers 429: Slow down; again in 7 s (2 of 6 attempts)",
    ]
    assert len(server.kernels[REF]) == 1


def test_tries_are_bounded(server, kaggle, waits):
    server.misbehave("SaveKernel", *[answer(429, "Slow down")] * 10)
    path = write_kernel()
    assert refusal_of(push, path, kaggle) == (
        f"pushing {REF}: given up after 6 attempts; Kaggle answers 429: Slow down"
    )
    assert len(asked(server, "SaveKernel")) == 6
    assert len(waits) == 5
    assert all(2**n * 0.75 <= seconds <= 2**n * 1.25 for n, seconds in enumerate(waits))
    assert not (path / "push.json").exists()


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "; the credentials are not accepted: make a new API token on kaggle.com/settings"),
        (403, "; not allowed: is the name right, is it yours, and are the competition's rules accepted?"),
        (404, "; there is no such thing, or it is not yours to see"),
        (400, ""),
    ],
)
def test_what_will_not_pass_is_not_tried_again(server, kaggle, waits, status, hint):
    server.misbehave("SaveKernel", answer(status, "No\n way"))
    assert refusal_of(push, write_kernel(), kaggle) == f"pushing {REF}: Kaggle answers {status}: No way{hint}"
    assert len(asked(server, "SaveKernel")) == 1
    assert waits == []


def test_a_wrong_key(server, kit, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "f" * 32)
    assert kit("kernel", "push", write_kernel()) == (
        1,
        f"error: asking for {REF}: Kaggle answers 401: Unauthenticated; the credentials are not accepted: make a "
        "new API token on kaggle.com/settings\n",
    )


@pytest.mark.parametrize("before", [0, 2])
def test_a_push_that_did_not_arrive_is_sent_again(server, kaggle, said, before):
    path = write_kernel()
    for _ in range(before):
        push(path, kaggle, say=no_pause)
    server.misbehave("SaveKernel", drop())
    assert push(path, kaggle, say=said.append).version == before + 1
    assert len(server.kernels[REF]) == before + 1
    assert "the connection broke (" in said[0]
    assert said[0].endswith("again in 1 s (1 of 6 attempts)")


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(
    "fault",
    [drop(acted=True), drop(after_bytes=10), answer(504, "Timeout", acted=True), answer(503, "Busy", acted=True)],
)
def test_a_push_whose_answer_was_lost_is_recognised(server, kaggle, said, before, fault):
    path = write_kernel()
    for _ in range(before):
        push(path, kaggle, say=no_pause)
    server.misbehave("SaveKernel", fault)
    assert push(path, kaggle, say=said.append).version == before + 1
    assert len(server.kernels[REF]) == before + 1
    assert said[1] == (
        f"pushing {REF}: it had arrived, only the answer was lost; see on its page that all sources are there"
    )
    assert pushed_kernel(path).version == before + 1


def test_a_push_of_which_nothing_is_known(server, kaggle):
    path = write_kernel()
    server.misbehave("GetKernel", answer(403), *[answer(500)] * 20)
    server.misbehave("SaveKernel", drop(acted=True))
    message = refusal_of(push, path, kaggle)
    assert message == (
        f"pushing {REF}: may have arrived, look on Kaggle before you send it again (pushing {REF}: whether "
        f"it arrived cannot be told); a session of {REF} (https://www.kaggle.com/code/{REF}) may be running; the "
        "same command finds out"
    )
    assert len(server.kernels[REF]) == 1
    assert not (path / "push.json").exists()


def test_an_error_of_which_http_does_not_tell(server, kaggle, said):
    server.misbehave("GetKernel", instead({"code": 503, "message": "maintenance"}))
    push(write_kernel(), kaggle, say=said.append)
    assert said[0] == f"asking for {REF}: Kaggle answers 503: maintenance; again in 1 s (1 of 6 attempts)"
    server.misbehave(
        "GetKernel", instead({"code": 403, "message": "no"}), instead({"code": 401, "message": "who?"})
    )
    assert kaggle.latest_version("tester", SLUG) == 0
    assert "Kaggle answers 401: who?" in refusal_of(kaggle.latest_version, "tester", SLUG)


def test_an_error_in_the_answer(server, kit):
    path = write_kernel()
    server.misbehave("SaveKernel", instead({"error": "Maximum batch CPU session count\nof 5 reached."}))
    assert kit("kernel", "push", path) == (
        1,
        f"error: pushing {REF}: Kaggle says: Maximum batch CPU session count of 5 reached.\n",
    )
    assert not (path / "push.json").exists()


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("dataset", "tester/no-such-data"),
        ("competition", "no-such-competition"),
        ("kernel", "tester/no-such-kernel"),
        ("model", "a/b/pyTorch/c/1"),
    ],
)
def test_sources_that_kaggle_does_not_know(server, kit, kind, source, monkeypatch):
    monkeypatch.setattr(pushing, "wait_for_dataset", lambda *arguments: None)  # it would have told already
    path = write_kernel(**{f"{kind}_sources": [source]})
    assert kit("kernel", "push", path) == (
        1,
        f"error: pushing {REF}: Kaggle does not know, or does not let you use: {kind} {source}. The kernel was "
        f"saved and runs without; cancel it on its page (https://www.kaggle.com/code/{REF}), mend the sources and "
        "push again\n",
    )
    assert not (path / "push.json").exists()


def test_what_the_client_itself_refuses(server, kaggle):
    path = write_kernel(title="tiny")
    assert refusal_of(push, path, kaggle) == f"pushing {REF}: Title must be at least five characters"


# Wait and status


def test_wait_is_pinned_to_the_pushed_version(server, kaggle, said):
    path = pushed(server, kaggle, {})
    server.stale_statuses = 100
    push(path, kaggle, say=no_pause)
    assert kaggle._api.kernels_status(REF).status.name == "COMPLETE"  # the previous run's
    server.script_status(REF, ["QUEUED", "RUNNING", "RUNNING", "COMPLETE"])
    ended = wait(pushed_kernel(path), kaggle, said.append, no_pause)
    assert (ended.outcome, ended.failure) == ("complete", "")
    assert said == [f"{REF} version 2: {status}, 0 min" for status in ("QUEUED", "RUNNING", "complete")]
    assert {request["versionLabel"] for request in asked(server, "GetKernelSessionStatus")[2:]} == {"v2"}


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [("COMPLETE", 0, "complete"), ("ERROR", 3, "failed: exception"), ("CANCEL_ACKNOWLEDGED", 4, "cancelled")],
)
def test_the_exit_code_tells_how_it_ended(server, kit, impatient, status, code, outcome):
    path = pushed(server, Kaggle())
    server.script_status(REF, ["QUEUED", "RUNNING", status])
    ended, told = kit("kernel", "wait", path)
    assert ended == code, told
    assert told.splitlines()[-1].startswith(f"{REF} version 1: {outcome}")


def test_push_and_wait(server, kit, impatient):
    server.runner = lambda version: ("ERROR", "one\ntwo\n", {}, "Something odd")
    code, told = kit("kernel", "push", write_kernel(), "--wait")
    assert code == 3
    assert told.splitlines()[-3:] == ["  | one", "  | two", f"{REF} version 1: failed: exception (Something odd)"]


@pytest.mark.parametrize(
    ("message", "log", "failure"),
    [
        (
            "Your notebook exceeded the time limit",
            "",
            "timeout (Your notebook exceeded the time limit); try fewer",
        ),
        ("Notebook Timeout", "", "timeout (Notebook Timeout); try fewer epochs, or fewer folds a kernel"),
        (
            "Your notebook tried to allocate more memory than is available",
            "",
            "exceeded compute (Your notebook tried to allocate more memory than is available); try a smaller",
        ),
        ("", "torch.OutOfMemoryError: CUDA out of memory.", "exceeded compute (as the log says); try a smaller "),
        (
            "",
            "error: training.batch_size: the GPU's memory is too small; lower it",
            "exceeded compute (as the log says)",
        ),
        ("", "exit code -9 after 60 s, 3 files", "exceeded compute (as the log says)"),
        ("Exited with code 137", "", "exceeded compute (Exited with code 137)"),
        (
            "",
            "pixels are on disk, in memory\nretry with timeout 60\nKeyError: 'label'",
            "exception (as the log says)",
        ),
        ("Your notebook ended with exit code 1", "KeyError", "exception (Your notebook ended with exit code 1)"),
    ],
)
def test_which_failure_it_was(server, kaggle, said, message, log, failure):
    path = pushed(server, kaggle)
    server.finish(REF, "ERROR", log=f"begun\n{log}\n", failure_message=message)
    ended = wait(pushed_kernel(path), kaggle, said.append, no_pause)
    assert ended.outcome == "failed"
    assert ended.failure.startswith(failure), ended.failure
    assert list(ended.tail) == ["begun", *log.splitlines(), *([""] if not log else [])]


def test_the_end_of_a_long_log(server, kit, impatient):
    path = pushed(server, Kaggle())
    server.finish(REF, "ERROR", log="".join(f"line {number}\n" for number in range(100)))
    code, told = kit("kernel", "wait", path)
    assert code == 3
    assert told.splitlines()[1:-1] == [f"  | line {number}" for number in range(70, 100)]


def test_a_failure_whose_log_cannot_be_had(server, kit, impatient):
    path = pushed(server, Kaggle())
    server.finish(REF, "ERROR", failure_message="It broke")
    server.misbehave("ListKernelSessionOutput", answer(404, "no log"))
    code, told = kit("kernel", "wait", path)
    assert (code, told.splitlines()[-1]) == (3, f"{REF} version 1: failed: exception (It broke)")


def test_an_infer_kernel_without_its_csv_has_failed(server, kit, impatient):
    path = pushed(server, Kaggle(), {"log.txt": b""}, record={"kind": "infer"})
    server.log(REF, "the last words\n")
    code, told = kit("kernel", "wait", path)
    assert code == 3
    assert told.splitlines()[-2:] == [
        "  | the last words",
        f"{REF} version 1: failed: CSV not found: there is no submission.csv among its outputs",
    ]
    server.finish(REF, files=listed({"submission.csv": b"id,label\n"}))
    assert kit("kernel", "wait", path)[0] == 0


def test_a_version_that_is_unknown_for_a_while(server, kit, kaggle, said, impatient, monkeypatch):
    path = pushed(server, kaggle, {})
    server.misbehave("GetKernelSessionStatus", *[answer(404, "Not found")] * 3)
    ended = wait(pushed_kernel(path), kaggle, said.append, no_pause)
    assert ended.outcome == "complete"
    assert said == [
        f"{REF} version 1: Kaggle does not show it yet; looking again for up to 5 min",
        f"{REF} version 1: complete, 0 min",
    ]
    monkeypatch.setattr(sessions, "GRACE", -1)  # what was pushed long ago
    server.misbehave("GetKernelSessionStatus", answer(404, "Not found"))
    assert kit("kernel", "wait", path) == (
        1,
        f"error: asking for {REF} version 1: Kaggle answers 404: Not found; there is no such thing, or it is not "
        f"yours to see; a session may be running all the same: {LOOK}; "
        f"not watched any more, and may be running on Kaggle: {REF} version 1 "
        f"(https://www.kaggle.com/code/{REF}); python -m kit kernel wait {path} goes on\n",
    )


def test_status(server, kit):
    path = pushed(server, Kaggle())
    write_kernel("small-train-fold-1")
    server.script_status(REF, ["RUNNING"])
    assert kit("kernel", "status", path) == (0, f"{REF} version 1: RUNNING\n")
    server.finish(REF, "ERROR", failure_message="It broke")
    assert kit("kernel", "status", "--all") == (
        0,
        f"{REF} version 1: ERROR (It broke)\nkernels/build/small-train-fold-1: not pushed yet\n",
    )
    code, told = kit("kernel", "status", "kernels/build/small-train-fold-1")
    assert code == 1
    assert told.startswith("error: kernels/build/small-train-fold-1 was not pushed yet: ")


# Logs


def test_logs_of_the_pushed_version(server, kit):
    path = pushed(server, Kaggle())
    server.log(REF, "first\nsecond\n")
    server.kernels[REF].append(server.kernels[REF][0])  # a later version, by other hands
    assert kit("kernel", "logs", path) == (0, "first\nsecond\n")
    assert asked(server, "ListKernelSessionOutput")[-1]["versionLabel"] == "v1"


def pushed_long_ago(server, files: dict[str, bytes] | None = None) -> Path:
    path = pushed(server, Kaggle(), files)
    content = json.loads((path / "push.json").read_text())
    (path / "push.json").write_text(json.dumps(content | {"when": "2026-01-05T10:00:00+00:00"}))
    return path


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["at once", "follow"])
def test_logs_of_a_version_that_was_pushed_long_ago_and_is_refused(server, kit, impatient, follow):
    path = pushed_long_ago(server, {})
    denied = "Permission 'kernelSessions.get' was denied"
    server.misbehave("ListKernelSessionOutput", answer(403, denied))
    assert kit("kernel", "logs", path, *follow) == (
        1,
        f"error: listing the outputs of {REF} version 1: Kaggle answers 403: {denied}; {LOOK}\n",
    )


def test_a_log_that_is_followed_to_an_end_that_is_not_shown_yet(server, kit, impatient):
    path = pushed(server, Kaggle(), {})
    server.misbehave("ListKernelSessionOutput", answer(403, "No"))
    assert kit("kernel", "logs", path, "--follow") == (
        1,
        f"error: {REF} version 1: Kaggle does not show it yet; try again in some minutes\n",
    )


def test_logs_that_kaggle_fails_at(server, kit, impatient):
    """No new token, and no new push, helps against that."""
    path = pushed_long_ago(server)
    server.misbehave("ListKernelSessionOutput", *[answer(500, "Internal")] * 6)
    assert kit("kernel", "logs", path) == (
        1,
        f"error: listing the outputs of {REF} version 1: given up after 6 attempts; Kaggle answers 500: Internal; "
        f"try again later, or look at https://www.kaggle.com/code/{REF}\n",
    )


def test_a_log_of_plain_text(server, kit, monkeypatch):
    path = pushed(server, Kaggle(), {})
    monkeypatch.setattr(type(server.kernels[REF][0]), "log_text", lambda version: "first\nsécond\n10%\r20%\r\nend")
    assert kit("kernel", "logs", path) == (0, "first\nsécond\n20%\nend\n")


def test_logs_that_are_followed(server, kit, impatient):
    path = pushed(server, Kaggle())
    server.log(REF, "one\n")
    server.script_status(REF, ["RUNNING", "COMPLETE"])
    server.misbehave("GetKernelSessionLogsStream", answer(404, "not begun"))
    assert kit("kernel", "logs", path, "--follow") == (0, "one\n")


def test_a_broken_stream_is_taken_up_without_a_line_twice_or_lost(server, kaggle):
    """Lines come as they are written, of which some are written in parts; the stream breaks amid a line."""
    path = pushed(server, kaggle)
    version = server.kernels[REF][0]

    def write(text: str) -> None:
        version.log.append({"stream_name": "stdout", "time": 0.0, "data": text})

    for text in ("one\n", "two", " halves\n", "three\u2028é\n", "fo"):
        write(text)
    first = sum(len(json.dumps(event)) + 8 for event in version.log[:2])
    server.misbehave("GetKernelSessionLogsStream", drop(after_bytes=first + 10), drop())
    lines = follow_log(pushed_kernel(path), kaggle, no_pause)
    assert [next(lines) for _ in range(3)] == ["one", "two halves", "three\u2028é"]
    server.log(REF, "ur\nfive\n")
    assert [next(lines) for _ in range(2)] == ["four", "five"]
    write("six, without an end")
    server.finish(REF)
    assert list(lines) == ["six, without an end"]
    assert len(asked(server, "GetKernelSessionLogsStream")) == 3


def test_the_bytes_of_a_stream_are_utf_8(server, kaggle, monkeypatch):
    """requests takes text without a stated charset for Latin-1, in which \x85 ends a line."""
    path = pushed(server, kaggle)
    line = json.dumps({"data": "Å…\n"}, ensure_ascii=False)
    monkeypatch.setattr(
        type(server),
        "_events",
        lambda self, version: iter([f"data: {line}\n\n".encode(), b"data: END_OF_LOG\n\n"]),
    )
    assert list(kaggle.log_stream(pushed_kernel(path))) == ["Å…"]


# Many


def fold_kernels(count: int, **fields) -> list[KernelFolder]:
    return [KernelFolder(write_kernel(f"small-train-fold-{fold}", **fields)) for fold in range(count)]


def under_way(server) -> list[str]:
    versions = [version for versions in server.kernels.values() for version in versions]
    return [version.ref for version in versions if version.status not in OVER]


def test_never_more_than_the_sessions_at_once(server, kaggle, said):
    seen = []

    def pause(seconds: float) -> None:
        seen.append(len(under_way(server)))
        server.finish(under_way(server)[0])

    ended = push_all(fold_kernels(5), kaggle, sessions=2, say=said.append, pause=pause)
    assert [each.outcome for each in ended] == ["complete"] * 5
    assert max(seen) == 2
    assert [len(versions) for versions in server.kernels.values()] == [1] * 5
    assert said[0].startswith("pushed tester/small-train-fold-0 version 1")
    assert said.count("tester/small-train-fold-4 version 1: complete, 0 min") == 1


def test_what_goes_on_for_long_is_told_every_minute(server, kaggle, said, monkeypatch):
    server.script_status(REF, ["RUNNING"] * 5 + ["COMPLETE"])
    seconds = itertools.count(100, 20)
    for module in (pushing, sessions):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    push_all(fold_kernels(1), kaggle, say=said.append, pause=no_pause)
    assert said[1:] == [
        f"{REF} version 1: {told}" for told in ("RUNNING, 0 min", "RUNNING, 1 min", "complete, 2 min")
    ]


def test_it_resumes_where_it_stopped(server, kaggle, said):
    kernels = fold_kernels(4)
    server.script_status("tester/small-train-fold-0", ["RUNNING", "COMPLETE"])

    def killed(seconds: float) -> None:
        if len(server.kernels) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push_all(kernels, kaggle, say=said.append, pause=killed)
    assert under_way(server) == ["tester/small-train-fold-1", "tester/small-train-fold-2"]

    def pause(seconds: float) -> None:
        assert len(under_way(server)) <= 2
        server.finish(under_way(server)[0])

    ended = push_all(kernels, Kaggle(), say=said.append, pause=pause)
    assert sorted(each.kernel.slug for each in ended) == [kernel.path.name for kernel in kernels]
    assert [len(versions) for versions in server.kernels.values()] == [1] * 4
    (kernels[0].path / "small-train-fold-0.py").write_text("print('built again')\n")
    rehearse(kernels[0].path)
    push_all(kernels, Kaggle(), say=said.append, pause=pause)
    assert [len(versions) for versions in server.kernels.values()] == [2, 1, 1, 1]


def test_an_interrupted_command_says_what_goes_on(server, kit, monkeypatch):
    write_kernel()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pushing, "push", interrupt)
    for words in (["--all"], [f"kernels/build/{SLUG}", "--wait"]):
        assert kit("kernel", "push", *words) == (
            130,
            "interrupted; what was pushed before runs on\n",
        )


def test_a_quota_that_is_used_up_midway(server, kit, impatient):
    fold_kernels(4, enable_gpu=True)

    def runner(version):
        server.gpu_quota = (30 * 3600, 30 * 3600)
        return "COMPLETE", "", {}, ""

    server.runner = runner
    server.gpu_quota = (29 * 3600, 30 * 3600)
    code, told = kit("kernel", "push", "--all", "--sessions", 1)
    assert code == 1
    assert told.splitlines()[-3:] == [
        "tester/small-train-fold-0 version 1: complete, 0 min",
        "error: 30.0 of 30.0 GPU hours of this week are used; nothing was pushed. Wait for the next week, or "
        "build with kernel.accelerator=none",
        "error: 3 of 4 kernels are left; the same command goes on with them",
    ]
    server.runner = lambda version: ("COMPLETE", "", {}, "")
    server.gpu_quota = (0, 30 * 3600)
    code, told = kit("kernel", "push", "--all")
    assert code == 0, told
    assert told.count(": complete\n") == 4
    assert [len(versions) for versions in server.kernels.values()] == [1] * 4


def test_what_fails_before_a_push_is_refused_is_told(server, kaggle, said):
    kernels = fold_kernels(2, enable_gpu=True)

    def pause(seconds: float) -> None:
        server.gpu_quota = (1, 1)
        server.finish(under_way(server)[0], "ERROR")

    with pytest.raises(KitError) as caught:
        push_all(kernels, kaggle, sessions=1, say=said.append, pause=pause)
    assert str(caught.value).splitlines()[1:] == [
        "tester/small-train-fold-0 version 1 failed",
        "1 of 2 kernels are left; the same command goes on with them",
    ]


def test_one_failed_kernel_among_several(server, kit, impatient):
    fold_kernels(3)
    server.runner = lambda version: (
        ("ERROR", "one\nlast words\n", {}, "It broke") if "fold-1" in version.slug else ("COMPLETE", "", {}, "")
    )
    code, told = kit("kernel", "push", "--all")
    assert code == 3
    assert [line for line in told.splitlines() if line.endswith(": complete")] == [
        "tester/small-train-fold-0 version 1: complete",
        "tester/small-train-fold-2 version 1: complete",
    ]
    assert "  | one\n  | last words\ntester/small-train-fold-1 version 1: failed: exception (It broke)\n" in told


def test_a_kernel_that_was_deleted_does_not_end_the_watching_of_the_others(server, kit, impatient, monkeypatch):
    """It is told at the end, with what to do about it, as one that failed."""
    first = fold_kernels(3)[0]
    push(first.path, Kaggle())
    first.write_push(first.push | {"when": "2026-01-05T10:00:00+00:00"})
    del server.kernels[REF]
    monkeypatch.setattr(sessions, "GRACE", -1)
    server.runner = lambda version: ("COMPLETE", "", {}, "")
    code, told = kit("kernel", "push", "--all")
    assert (code, told.count(": complete\n")) == (3, 2), told
    (line,) = [line for line in told.splitlines() if line.startswith(f"{REF} version 1: failed: ")]
    assert LOOK in line
    (first.path / "push.json").unlink()
    code, told = kit("kernel", "push", "--all")
    assert (code, told.count(": complete\n")) == (0, 3), told


def test_an_end_that_cannot_be_judged_does_not_end_the_watching_of_the_others(server, kaggle, said, monkeypatch):
    def judge(kernel, *arguments):
        if kernel.slug == SLUG:
            raise Refused("its list cannot be had", 404)
        return EndedSession(kernel, "complete")

    monkeypatch.setattr(sessions, "judge", judge)
    server.runner = lambda version: ("COMPLETE", "", {}, "")
    ended = push_all(
        fold_kernels(2), kaggle, say=said.append, pause=lambda seconds: server.wait(lambda: not under_way(server))
    )
    assert [(each.kernel.slug, each.outcome) for each in ended] == [
        (SLUG, "failed"),
        ("small-train-fold-1", "complete"),
    ]
    assert ended[0].failure.startswith("how it ended is not known: its list cannot be had; ")


def test_an_infer_kernel_among_several_needs_its_csv(server, kaggle, said):
    kernels = [KernelFolder(write_kernel(record={"kind": "infer"}))]
    server.runner = lambda version: ("COMPLETE", "", {}, "")
    (ended,) = push_all(
        kernels, kaggle, say=said.append, pause=lambda seconds: server.wait(lambda: not under_way(server))
    )
    assert (ended.outcome, ended.failure[:13]) == ("failed", "CSV not found")


def test_all_of_one_kernel_is_waited_for_and_not_pushed_twice(server, kit, impatient):
    write_kernel()
    server.runner = lambda version: ("COMPLETE", "", {}, "")
    for _ in range(2):
        code, told = kit("kernel", "push", "--all")
        assert (code, told.splitlines()[-1]) == (0, f"{REF} version 1: complete")
    assert len(server.kernels[REF]) == 1


BUSY = "Maximum batch GPU session count of 2 reached."


def test_sessions_that_are_taken_by_others_are_waited_for(server, kaggle, said):
    kernels = fold_kernels(3)
    running = push(kernels[0].path, kaggle, say=said.append)
    server.misbehave("SaveKernel", instead({"error": BUSY}), answer(400, BUSY))

    def pause(seconds: float) -> None:
        if len(asked(server, "SaveKernel")) > 3:
            server.finish(under_way(server)[0])

    ended = push_all(kernels, kaggle, sessions=2, say=said.append, pause=pause)
    assert [each.outcome for each in ended] == ["complete"] * 3
    assert ended[0].kernel == running
    assert [len(versions) for versions in server.kernels.values()] == [1] * 3


def test_sessions_that_are_all_taken_by_others(server, kit, impatient):
    fold_kernels(2)
    server.misbehave("SaveKernel", instead({"error": BUSY}))
    assert kit("kernel", "push", "--all") == (
        1,
        f"error: pushing tester/small-train-fold-0: Kaggle says: {BUSY}\n"
        "error: 2 of 2 kernels are left; the same command goes on with them\n",
    )


def test_a_late_kernel_may_be_unknown_for_a_while_too(server, kaggle, said, monkeypatch):
    """The patience with a version that Kaggle has not heard of begins with its own push."""
    clock = [0.0]
    for module in (pushing, sessions):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    kernels = fold_kernels(2)

    def pause(seconds: float) -> None:
        if len(server.kernels) == 1:
            clock[0] += sessions.GRACE + 1  # so long the first one runs
            server.finish(under_way(server)[0])
            server.misbehave("GetKernelSessionStatus", instead({"status": "COMPLETE"}), answer(404, "Not found"))
        else:
            clock[0] += 1
            server.finish("tester/small-train-fold-1")

    ended = push_all(kernels, kaggle, sessions=1, say=said.append, pause=pause)
    assert [each.outcome for each in ended] == ["complete"] * 2
    late = "tester/small-train-fold-1 version 1: Kaggle does not show it yet; looking again for up to 5 min"
    assert late in said


# Uploads


def test_a_folder_becomes_a_private_dataset_and_then_a_new_version(server, kit, impatient):
    server.dataset_statuses = ["BLOBS_RECEIVED", "READY"]
    folder = dataset(first=b"1", empty=b"")
    assert kit("kernel", "upload", folder) == (
        0,
        "uploading tester/small-data\nwaiting for the dataset tester/small-data: BLOBS_RECEIVED\n"
        "tester/small-data is READY\n",
    )
    stored = server.datasets["tester/small-data"]
    assert stored.files == {"first": b"1", "empty": b""}
    wanted = {"isPrivate": True, "title": "small data", "licenseName": "other", "ownerSlug": "tester"}
    assert {name: stored.request.get(name) for name in wanted} == wanted
    dataset(second=b"2")
    code, told = kit("kernel", "upload", folder, "-m", "with a second")
    assert code == 0, told
    assert stored.versions[1] == {"first": b"1", "empty": b"", "second": b"2"}
    assert asked(server, "CreateDatasetVersion")[0]["body"]["versionNotes"] == "with a second"


def test_an_upload_waits_for_the_one_before(server, kit, impatient):
    folder = dataset(first=b"1")
    kit("kernel", "upload", folder)
    server.datasets["tester/small-data"].script.extend(["BLOBS_RECEIVED", "BLOBS_RECEIVED", "READY"])
    code, told = kit("kernel", "upload", folder)
    assert code == 0, told
    assert told.splitlines()[:2] == [
        "waiting for the dataset tester/small-data: BLOBS_RECEIVED",
        "uploading tester/small-data",
    ]
    assert len(server.datasets["tester/small-data"].versions) == 2


def test_an_upload_while_the_one_before_is_processed_is_refused_by_kaggle(server, kaggle):
    folder = dataset(first=b"1")
    server.dataset_statuses = ["BLOBS_RECEIVED"]
    kaggle.upload_dataset(folder, "")
    assert refusal_of(kaggle.upload_dataset, folder, "") == (
        "uploading tester/small-data: Kaggle answers 403: A version of this dataset is still being processed; not "
        "allowed: is the name right, is it yours, and are the competition's rules accepted?"
    )


def test_an_error_in_the_answer_to_an_upload(server, kit):
    folder = dataset(first=b"1")
    server.misbehave("CreateDataset", instead({"status": "error", "error": "The title is in use."}))
    code, told = kit("kernel", "upload", folder)
    assert (code, told.splitlines()[-1]) == (
        1,
        "error: uploading tester/small-data: Kaggle says: The title is in use.",
    )


def test_what_must_not_be_sent_is_not(server, kit):
    folder = dataset(first=b"1")
    (folder / "kaggle.json").write_text('{"username": "tester", "key": "0123456789abcdef0123456789abcdef"}')
    code, told = kit("kernel", "upload", folder)
    assert (code, len(told.splitlines())) == (1, 1)
    assert "kaggle.json" in told
    (folder / "kaggle.json").unlink()
    (folder / "more").mkdir()
    assert "sub-folders are not uploaded; move or pack more" in kit("kernel", "upload", folder)[1]
    assert server.datasets == {}


def test_a_model_is_uploaded_otherwise(server, kit, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"1")
    assert kit("kernel", "weights", tmp_path / "net.pth", "--to", "tester/net/pyTorch/small")[0] == 0
    code, told = kit("kernel", "upload", "kernels/datasets/net")
    assert code == 1
    assert "is a model's; Kaggle's own command uploads it: kaggle models create -p kernels/datasets/net" in told


def test_a_folder_that_is_no_dataset(server, kit):
    Path("empty").mkdir()
    assert kit("kernel", "upload", "empty") == (
        1,
        "error: empty has no dataset-metadata.json; `python -m kit kernel weights` and `wheels` make such "
        "folders\n",
    )
    folder = dataset(first=b"1")
    (folder / "sub").mkdir()
    code, told = kit("kernel", "upload", folder)
    assert (code, told.splitlines()[-1]) == (
        1,
        f"error: {folder}: sub-folders are not uploaded; move or pack sub",
    )
    assert server.datasets == {}


def test_a_dataset_that_fails(server, kit):
    server.dataset_statuses = ["FAILED"]
    code, told = kit("kernel", "upload", dataset(first=b"1"))
    assert (code, told.splitlines()[-1]) == (
        1,
        "error: the dataset tester/small-data is FAILED on Kaggle; upload it again",
    )


def test_a_dataset_is_looked_at_every_few_seconds(server, kaggle, said):
    kaggle.upload_dataset(dataset(first=b"1"), "")
    script = server.datasets["tester/small-data"].script
    script.clear()
    script.extend(["BLOBS_RECEIVED", "BLOBS_RECEIVED", "READY"])
    waits: list[float] = []
    wait_for_dataset("tester/small-data", kaggle, said.append, waits.append)
    assert waits == [5.0, 5.0]
    assert said == ["waiting for the dataset tester/small-data: BLOBS_RECEIVED"]
