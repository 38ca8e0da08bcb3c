import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support.colours import experiment_content, write_competition

from kit.core.errors import KitError
from kit.experiment.config import validate
from kit.experiment.grade import grade


@pytest.fixture
def folder(tmp_path):
    """Colours with nine test rows: blue, green, red and so on."""
    return write_competition(tmp_path / "colours", rows=9, side=2)


def _experiment(folder, **sections):
    return validate(experiment_content(folder, **sections), "test")


def _truth(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "solution.csv", dtype=str)


def _write(folder, table: pd.DataFrame, name: str = "mine.csv"):
    table.to_csv(folder / name, index=False)
    return folder / name


def _grade(folder, submission: pd.DataFrame, **sections):
    return grade(_write(folder, submission), folder / "solution.csv", _experiment(folder, **sections))


def _refusal(folder, submission: pd.DataFrame, **sections) -> str:
    with pytest.raises(KitError) as caught:
        _grade(folder, submission, **sections)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def _numbers(folder, train: list[str], solution: list[str]) -> None:
    """Tables of a competition whose labels are numbers; ids are 0, 1, 2 …"""
    folder.mkdir(exist_ok=True)
    for name, labels in (("train", train), ("solution", solution)):
        pd.DataFrame({"id": map(str, range(len(labels))), "label": labels}).to_csv(
            folder / f"{name}.csv", index=False
        )


def test_the_solution_itself_scores_one(folder):
    result = _grade(folder, _truth(folder))
    assert (result.metric, result.value, result.rows) == ("macro F1", 1.0, 9)


def test_one_class_for_all_rows_scores_a_sixth(folder):
    result = _grade(folder, _truth(folder).assign(label="red"))  # red: precision 1/3, recall 1
    assert result.value == pytest.approx((0 + 0 + 1 / 2) / 3)


def test_the_metric_is_that_of_the_config(folder):
    truth = _truth(folder)
    submission = truth.assign(label=["blue", *truth["label"].tolist()[:-1]])
    result = _grade(folder, submission, scoring={"average": "weighted", "beta": 2})
    assert result.metric == "weighted F2"
    micro = _grade(folder, submission, scoring={"average": "micro"})
    assert (micro.metric, micro.value) == ("micro F1", pytest.approx(1 / 9))
    one_wrong = truth.assign(label=["red", *truth["label"][1:]])
    lowest = _grade(folder, one_wrong, scoring={"average": "lowest"})
    expected = f1_score(truth["label"], one_wrong["label"], average=None).min()
    assert (lowest.metric, lowest.value) == ("lowest F1 of all classes", pytest.approx(expected))
    assert expected < f1_score(truth["label"], one_wrong["label"], average="macro")


def test_rows_are_joined_by_id(folder):
    truth = _truth(folder)
    wrong = truth.assign(label=["red", *truth["label"][1:]])
    expected = f1_score(truth["label"], wrong["label"], average="macro")
    assert 0.8 < expected < 1
    assert _grade(folder, wrong).value == pytest.approx(expected)
    assert _grade(folder, wrong.sample(frac=1, random_state=3)).value == pytest.approx(expected)


def test_further_columns_of_the_solution_are_passed_over(folder):
    truth = _truth(folder)
    _write(folder, truth.assign(Usage=["Public", "Private", "Private"] * 3), "solution.csv")
    assert _grade(folder, truth).value == 1.0


def test_a_class_of_the_train_table_may_be_predicted_where_the_solution_lacks_it(folder):
    truth = _truth(folder).replace("green", "blue")
    _write(folder, truth, "solution.csv")
    submission = truth.assign(label=["green", *truth["label"][1:]])
    expected = (2 * 5 / (2 * 5 + 1) + 0 + 1) / 3  # blue: one of six missed; green: one false; red: right
    assert _grade(folder, submission).value == pytest.approx(expected)


def test_a_class_of_the_solution_may_lack_in_the_train_table(folder):
    train = pd.read_csv(folder / "train.csv")
    _write(folder, train[train["label"] != "green"], "train.csv")
    assert _grade(folder, _truth(folder)).value == 1.0


def test_without_the_competition_the_solution_tells_columns_and_classes(tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    truth = pd.DataFrame({"id": ["007", "7", "8"], "label": ["NA", "b", "b"], "Usage": "Public"})
    _write(folder, truth, "solution.csv")
    assert _grade(folder, truth[["id", "label"]]).value == 1.0
    assert "'c' is no class" in _refusal(folder, truth[["id", "label"]].replace("b", "c"))


def test_the_columns_are_those_of_the_sample(folder):
    sample = pd.read_csv(folder / "sample_submission.csv").rename(columns={"id": "image", "label": "colour"})
    _write(folder, sample, "sample_submission.csv")
    truth = _truth(folder)
    assert _grade(folder, truth.set_axis(["image", "colour"], axis=1)).value == 1.0
    assert _refusal(folder, truth) == (f"{folder / 'mine.csv'}: the columns are id, label; expected image, colour")


@pytest.mark.parametrize("path", ["~/colours", "colours"])
def test_the_competition_is_found_where_training_finds_it(folder, path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    truth = _truth(folder).replace("green", "blue")
    _write(folder, truth, "solution.csv")
    submission = truth.assign(label=["green", *truth["label"][1:]])  # green is known from the train table only
    assert _grade(folder, submission, competition={"path": path}).value == pytest.approx((10 / 11 + 1) / 3)


def test_a_number_in_the_submission_may_be_spelt_otherwise(tmp_path):
    folder = tmp_path / "numbers"
    _numbers(folder, train=["3", "7", "11"], solution=["3", "7", "11", "3"])
    submission = pd.DataFrame({"id": list("0123"), "label": ["3.0", "07", "11", "3"]})
    assert _grade(folder, submission).value == 1.0


def test_a_number_in_the_solution_may_be_spelt_otherwise(tmp_path):
    folder = tmp_path / "numbers"
    _numbers(folder, train=["3", "7", "11"], solution=["3.0", "7.0", "11.0", "3.0"])
    submission = pd.DataFrame({"id": list("0123"), "label": ["3", "7", "11", "7"]})
    expected = f1_score([3, 7, 11, 3], [3, 7, 11, 7], average="macro")
    assert _grade(folder, submission).value == pytest.approx(expected)


def test_missing_extra_and_duplicate_ids_are_named(folder):
    truth, mine = _truth(folder), folder / "mine.csv"
    extra = pd.concat([truth, pd.DataFrame({"id": ["test9"], "label": ["red"]})])
    assert _refusal(folder, truth.iloc[2:]) == f"{mine}: 2 of 9 ids are missing (test000, test001)"
    assert _refusal(folder, extra) == f"{mine}: 1 ids are not in the test set (test9)"
    assert _refusal(folder, pd.concat([truth, truth.iloc[[4]]])).startswith(
        f"{mine}: 1 ids stand there twice (test004);"
    )


def test_bad_labels_and_columns_are_named(folder):
    truth, mine = _truth(folder), folder / "mine.csv"
    assert _refusal(folder, truth.replace("green", "")) == (
        f"{mine}: no label for 3 ids (test001, test004, test007); pandas writes NaN so"
    )
    assert _refusal(folder, truth.replace("green", "grün")) == (
        f"{mine}: 'grün' is no class (in 3 rows); the classes are blue, green, red"
    )
    assert _refusal(folder, truth.rename(columns={"label": "target"})) == (
        f"{mine}: the columns are id, target; expected id, label"
    )


def test_files_that_are_not_there_are_named(folder):
    experiment = _experiment(folder)
    with pytest.raises(KitError, match=r"^submission: .*nothing\.csv does not exist"):
        grade(folder / "nothing.csv", folder / "solution.csv", experiment)
    with pytest.raises(KitError, match=r"^solution: .*nothing\.csv does not exist"):
        grade(folder / "solution.csv", folder / "nothing.csv", experiment)


def test_faults_of_the_solution_are_told_as_such(folder):
    truth, solution = _truth(folder), folder / "solution.csv"
    _write(folder, truth.rename(columns={"label": "target"}), "solution.csv")
    assert _refusal(folder, truth) == f"competition.label: {solution} has no column 'label'; it has id, target"
    _write(folder, pd.concat([truth, truth.iloc[[0]]]), "solution.csv")
    assert _refusal(folder, truth).startswith(f"{solution}: 1 ids stand there twice (test000)")


def test_a_solution_without_a_label_is_refused(folder):
    truth, solution = _truth(folder), folder / "solution.csv"
    _write(folder, truth.assign(label=["", *truth["label"][1:]]), "solution.csv")
    message = _refusal(folder, truth)
    assert message.startswith(f"{solution}: ")
    assert "test000" in message


def test_a_solution_without_rows_is_refused(folder):
    truth = _truth(folder).head(0)
    _write(folder, truth, "solution.csv")
    assert str(folder / "solution.csv") in _refusal(folder, truth)


class TestSpelling:
    """Solution and submission go through the one-label function."""

    def _graded(self, folder, train, solution, given, **competition):
        _numbers(folder, train, solution)
        submission = pd.DataFrame({"id": map(str, range(len(given))), "label": given})
        return _grade(folder, submission, competition=competition)

    def test_zeros_in_front_that_were_lost_are_refused(self, tmp_path):
        folder, classes = tmp_path / "numbers", ["01", "02", "03"]
        assert self._graded(folder, classes, classes, classes).value == 1.0
        with pytest.raises(KitError, match=r"'1', '2', '3' are no class \(in 3 rows\); .*; zeros in front count"):
            self._graded(folder, classes, classes, ["1", "2", "3"])

    def test_zeros_that_the_sample_has_not_either_are_told(self, tmp_path):
        folder, classes = tmp_path / "numbers", ["01", "02", "03"]
        folder.mkdir()
        _write(folder, pd.DataFrame({"id": ["0", "1", "2"], "label": ["1", "2", "3"]}), "sample_submission.csv")
        graded = self._graded(folder, classes, classes, ["1", "02", "3"])
        assert (graded.value, len(graded.notes)) == (1.0, 1)
        assert graded.notes[0].endswith(
            "labels are spelt otherwise, which counts where text is compared: '1' for '01' (in 1), '3' for '03' "
            "(in 1)"
        )
        assert graded.remarks() == list(graded.notes)

    def test_a_solution_that_lost_its_zeros_is_the_same(self, tmp_path):
        classes = ["01", "02", "03"]
        assert self._graded(tmp_path / "numbers", classes, ["1", "2", "3"], classes).value == 1.0

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            ("café ", "spaces around a label count"),
            ("cafe\u0301", "another Unicode form"),
            ("Café", "case counts"),
        ],
    )
    def test_what_is_one_label_but_other_text_is_refused(self, tmp_path, given, hint):
        with pytest.raises(KitError, match=f"is no class .*{hint}"):
            self._graded(tmp_path / "numbers", ["café", "tea"], ["café", "tea"], [given, "tea"])

    def test_spaces_in_the_solution_do_not_count(self, tmp_path):
        folder = tmp_path / "numbers"
        assert self._graded(folder, ["café", "tea"], ["cafe\u0301\xa0", "tea "], ["café", "tea"]).value == 1.0

    def test_a_header_with_a_space(self, folder):
        truth = _truth(folder)
        _write(folder, truth.rename(columns={"label": " label"}), "solution.csv")
        graded = _grade(folder, truth)
        assert graded.value == 1.0
        assert graded.notes == (
            f"{folder / 'solution.csv'}: columns are read under plain names: ' label' as label",
        )


class TestIgnored:
    """Rows of the solution whose Usage is Ignored."""

    USAGE = ("Public", "Ignored", "Private", "ignored ", "Public", "Public", "Private", "Private", "IGNORED")

    @pytest.mark.parametrize("column", ["Usage", "usage", " Usage"])
    @pytest.mark.parametrize("held", ["all", "wrong", "none"])
    def test_are_not_graded(self, folder, held, column):
        truth = _truth(folder)
        _write(folder, truth.assign(**{column: self.USAGE}), "solution.csv")
        left = pd.Series([usage.strip().lower() != "ignored" for usage in self.USAGE])
        given = truth.assign(label=["red", *truth["label"][1:]])
        expected = f1_score(truth["label"][left], given["label"][left], average="macro")
        if held == "wrong":
            given.loc[~left, "label"] = "no class at all"
        graded = _grade(folder, given[left] if held == "none" else given)
        assert (graded.rows, graded.ignored) == (6, 3)
        assert graded.value == pytest.approx(expected)
        assert expected < 1

    def test_are_of_no_other_test_set(self, folder):
        truth = _truth(folder)
        _write(folder, truth.assign(Usage=self.USAGE), "solution.csv")
        with pytest.raises(KitError, match=r"1 of 6 ids are missing \(test000\)"):
            _grade(folder, truth.replace("test000", "test999"))

    def test_may_not_be_all(self, folder):
        truth = _truth(folder)
        _write(folder, truth.assign(Usage="Ignored"), "solution.csv")
        assert _refusal(folder, truth) == (
            f"{folder / 'solution.csv'}: the Usage of all rows is Ignored; none is left to grade"
        )

    def test_may_have_no_label(self, folder):
        truth = _truth(folder)
        odd = truth.assign(Usage=self.USAGE)
        odd.loc[1, "label"] = ""
        _write(folder, odd, "solution.csv")
        assert _grade(folder, truth).ignored == 3

    def test_do_not_count_in_the_long_form(self, folder):
        content = {"long_form": True, "separator": " "}
        rows = [("test000", "blue", "Public"), ("test000", "red", "Ignored"), ("test001", "red", "Ignored")]
        _write(folder, pd.DataFrame(rows, columns=["id", "label", "Usage"]), "solution.csv")
        given = pd.DataFrame({"id": ["test000", "test001"], "label": ["blue", "green"]})
        result = _grade(folder, given, competition=content, scoring={"rule": "auto", "average": "micro"})
        assert (result.value, result.rows, result.ignored) == (1.0, 1, 1)

    @pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
    def test_rows_of_an_observation_leave_it_to_the_others(self, folder, order):
        rows = [("o1", "nobody knows", "Ignored"), ("o1", "blue", "Public"), ("o2", "red", "Private")]
        table = pd.DataFrame(rows, columns=["plant", "label", "Usage"]).iloc[order]
        _write(folder, table, "solution.csv")
        train = pd.read_csv(folder / "train.csv", dtype=str)
        _write(folder, train.assign(plant=train["id"]), "train.csv")
        test = pd.read_csv(folder / "test.csv", dtype=str)[:2]
        _write(folder, test.assign(plant=["o1", "o2"]), "test.csv")
        _write(folder, pd.DataFrame({"plant": ["o1", "o2"], "label": "red"}), "sample_submission.csv")
        given = pd.DataFrame({"plant": ["o1", "o2"], "label": ["blue", "blue"]})
        result = _grade(folder, given, competition={"predict_by": "plant"})
        assert (result.rows, result.ignored) == (2, 0)
        assert result.value == f1_score(["blue", "red"], ["blue", "blue"], average="macro")


class TestOtherLabels:
    """What the solution says and the train table does not."""

    def test_in_other_case_is_told(self, folder):
        truth = _truth(folder)
        _write(folder, truth.assign(label=["Blue", *truth["label"][1:]]), "solution.csv")
        result = _grade(folder, truth)
        assert result.value < 1
        (note,) = result.notes
        assert note.endswith(
            "'Blue' is no class of the train table, so that no submission is right there; the case of letters "
            "alone differs in 'Blue'"
        )

    def test_alone_are_refused(self, folder):
        truth = _truth(folder)
        _write(folder, truth.assign(label=truth["label"].str.upper()), "solution.csv")
        said = _refusal(folder, truth)
        assert "none of its labels ('BLUE', 'GREEN', 'RED') is a class of the train table" in said
        assert said.endswith("; the case of letters alone differs in 'BLUE', 'GREEN', 'RED'")
