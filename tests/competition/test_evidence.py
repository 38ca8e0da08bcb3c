"""What train table, config and sample submission say of each other's labels, as users have them."""

import unicodedata

import numpy as np
import pytest
from support.pixel_competition import pixel_competition
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.load import Competition, expected_submission, load_competition, load_labels, load_test

LETTERS = "id|label\na|cat\nb|dog\nc|cat\nd|dog"


def loaded(folder, train=LETTERS, sample="id|label\nt|cat\nu|dog", **options) -> Competition:
    config = pixel_competition(folder, train, sample, **options)
    competition = load_competition(config)
    again = load_labels(config)
    assert again is not None
    assert again[0] == competition.label_format
    assert np.array_equal(again[2], competition.targets)
    return competition


def handed_in(competition: Competition, *indices: int | list[int]) -> list[list[str]]:
    """The rows handed in where these classes are predicted, which are valid and read back as they were."""
    classes = len(competition.classes)
    if not competition.label_format.multilabel:
        predicted = np.array(indices)
    else:
        predicted = np.zeros((len(indices), classes), dtype=bool)
        for row, each in enumerate(indices):
            predicted[row, each] = True
    made = competition.submission.make(predicted, np.full((len(indices), classes), 0.5))
    if competition.submission.kind != "probabilities":
        assert np.array_equal(competition.submission.read(made, "x"), predicted)
    return made.to_numpy().tolist()


class TestNumbers:
    """Classes with zeros in front, and numbers that YAML reads its own way."""

    TRAIN = "id|label\na|01\nb|02\nc|03\nd|01\ne|02"

    @pytest.mark.parametrize("classes", [None, ["01", "02", "03"], [1, 2, 3], ["1.0", "2", "3e0"]])
    def test_are_handed_in_as_the_train_table_spells_them(self, tmp_path, classes):
        stated = {"classes": classes} if classes else {}
        competition = loaded(tmp_path, self.TRAIN, "id|label\nt|01\nu|01", **stated)
        assert competition.classes == ("01", "02", "03")
        assert handed_in(competition, 2, 0) == [["t", "03"], ["u", "01"]]
        other = classes in ([1, 2, 3], ["1.0", "2", "3e0"])
        assert [line.split(":")[0] for line in competition.remarks] == ["competition.classes"] * other

    def test_of_which_the_sample_spells_some_otherwise_are_told(self, tmp_path):
        competition = loaded(tmp_path, self.TRAIN, "id|label\nt|1\nu|2")
        assert competition.remarks == (
            "competition.sample_submission: column 'label' spells labels otherwise than the train table: '1' for "
            "'01', '2' for '02'; the train table's spelling is handed in",
        )
        assert handed_in(competition, 0, 1) == [["t", "01"], ["u", "02"]]

    def test_may_be_stated_without_a_train_table_as_the_sample_has_them(self, tmp_path):
        config = pixel_competition(tmp_path, self.TRAIN, "id|label\nt|01\nu|02", classes=[1, 2, 3])
        (tmp_path / "train.csv").unlink()
        form = expected_submission(config, load_test(config).sample)
        assert form.labels.classes == ("01", "02", "3")

    def test_that_are_columns_are_the_samples(self, tmp_path):
        train = "id|01|02\na|1|0\nb|0|1\nc|1|1"
        competition = loaded(tmp_path, train, "id|2|1\nt|0|0\nu|0|0", label=["01", "02"])
        assert competition.submission.class_of == {"2": 1, "1": 0}
        assert handed_in(competition, [0], [0, 1]) == [["t", "0", "1"], ["u", "1", "1"]]
        assert competition.remarks == (
            "competition.sample_submission: columns are spelt otherwise than the labels: column '2' is class "
            "'02', column '1' is class '01'",
        )

    def test_of_several_columns_of_one_class_are_refused(self, tmp_path):
        train = "id|01|02\na|1|0\nb|0|1\nc|1|1"
        config = pixel_competition(tmp_path, train, "id|2|02|01\nt|0|0|0", label=["01", "02"])
        assert "the columns '2', '02' are of one class, '02'" in refusal_of(load_competition, config)

    def test_that_are_names_keys_are_matched(self, tmp_path):
        competition = loaded(tmp_path, self.TRAIN, names={1: "rust", "02": "scab"})
        assert competition.names == {"01": "rust", "02": "scab", "03": "03"}
        config = pixel_competition(tmp_path, self.TRAIN, LETTERS, names={"1": "rust", "01": "scab"})
        assert refusal_of(load_competition, config) == (
            "competition.names: '1' and '01' are one label, class '01', with two names; leave one of them"
        )


class TestSpellings:
    """Spaces, Unicode forms and case."""

    def test_are_one_class_and_told(self, tmp_path):
        nfd = unicodedata.normalize("NFD", "café")
        train = f"id|label\na|café\nb|{nfd}\nc|café \nd|café\ne|tea"
        competition = loaded(tmp_path, train, "id|label\nt|café\nu|tea")
        assert competition.classes == ("café", "tea")
        assert competition.targets.tolist() == [0, 0, 0, 0, 1]
        assert competition.remarks == (
            f"competition.label: a label is spelt in several ways: 'café' (in 2) and {nfd!a} (in 1) and 'café ' "
            "(in 1) are 'café'",
        )

    def test_of_case_are_classes_of_their_own_and_told(self, tmp_path):
        competition = loaded(tmp_path, "id|label\na|cat\nb|Cat\nc|cat\nd|dog", "id|label\nt|cat\nu|dog")
        assert competition.classes == ("Cat", "cat", "dog")
        assert competition.remarks == (
            "competition.label: classes differ in case alone: 'Cat' (in 1) and 'cat' (in 2); if they are one, "
            "spell them alike",
        )

    def test_in_cells_of_several_labels(self, tmp_path):
        competition = loaded(
            tmp_path, "id|label\na|x,y\nb|y\u200b, x\nc|x\xa0\nd|", "id|label\nt|x\nu|", separator=","
        )
        assert competition.classes == ("x", "y")
        assert competition.targets.tolist() == [[True, True], [True, True], [True, False], [False, False]]
        assert competition.remarks == ()

    def test_of_a_header(self, tmp_path):
        competition = loaded(tmp_path, LETTERS.replace("label", " label"), "id| label\nt|cat\nu|cat")
        assert (competition.classes, list(competition.train.columns)) == (
            ("cat", "dog"),
            ["id", "label", "pixel0"],
        )
        assert competition.submission.columns == ("id", " label")  # as Kaggle wants it
        assert competition.remarks == (
            f"{tmp_path / 'train.csv'}: columns are read under plain names: ' label' as label",
        )

    def test_of_a_header_that_the_config_has_as_well(self, tmp_path):
        competition = loaded(tmp_path, LETTERS.replace("label", " label"), label=" label")
        assert (list(competition.train.columns)[1], competition.remarks) == (" label", ())

    def test_of_a_header_of_ids_and_of_classes(self, tmp_path):
        train = "\u200bid|x\xa0|y\na|1|0\nb|0|1\nc|1|1"
        competition = loaded(tmp_path, train, "id |x|y \nt|0|0\nu|0|0", label=["x", "y"])
        assert competition.submission.id_column == "id "
        assert handed_in(competition, [1], [0]) == [["t", "0", "1"], ["u", "1", "0"]]

    def test_of_two_headers_that_are_one_name_are_refused(self, tmp_path):
        config = pixel_competition(tmp_path, "id|label| label\na|cat|x\nb|dog|y\nc|dog|y", "id|label\nt|cat")
        assert refusal_of(load_competition, config) == (
            f"{tmp_path / 'train.csv'}: the columns 'label', ' label' have one name but for its spelling; rename "
            "one"
        )
        beside = pixel_competition(tmp_path, "id|label|x |x\na|cat|1|2\nb|dog|1|2\nc|dog|1|2", "id|label\nt|cat")
        assert list(load_competition(beside).train.columns)[2:4] == ["x ", "x"]  # nobody asks for them

    def test_of_a_header_are_shown_where_a_column_is_missing(self, tmp_path):
        config = pixel_competition(tmp_path, "id|la bel|other  one\na|cat|1\nb|dog|2", "id|label\nt|cat")
        assert refusal_of(load_competition, config).endswith(
            "has no column 'label'; it has id, la bel, 'other  one', pixel0"
        )


class TestLists:
    """Cells that are lists written as text."""

    TRAIN = "id|labels\na|['scab']\nb|['scab', 'rust']\nc|['rust']\nd|['healthy']"

    @pytest.mark.parametrize(
        ("sample", "cells"),
        [
            ("healthy", ["rust,scab", "healthy"]),
            ("['healthy']", ["['rust', 'scab']", "['healthy']"]),
            ('["healthy","rust"]', ['["rust","scab"]', '["healthy"]']),
            ("[healthy rust]", ["[rust scab]", "[healthy]"]),
            ("['healthy' 'rust']", ["['rust' 'scab']", "['healthy']"]),
        ],
    )
    def test_are_read_and_handed_in_as_the_sample_has_them(self, tmp_path, sample, cells):
        competition = loaded(
            tmp_path, self.TRAIN, f"id|labels\nt|{sample}\nu|{sample}", label="labels", separator=","
        )
        assert competition.classes == ("healthy", "rust", "scab")
        assert competition.targets.sum(axis=0).tolist() == [1, 2, 2]
        assert [cell for _, cell in handed_in(competition, [1, 2], [0])] == cells
        assert competition.remarks == (
            "competition.label: cells are lists, like ['scab']; their items are the labels",
        )

    def test_need_a_separator(self, tmp_path):
        config = pixel_competition(tmp_path, self.TRAIN, "id|labels\nt|healthy", label="labels")
        assert refusal_of(load_competition, config) == (
            "competition.label: the cells of column 'labels' are lists, like ['scab']; set competition.separator "
            "to what stands between the labels that are handed in, as in separator: ' ' (or list "
            "competition.classes, where the brackets belong to the labels)"
        )

    def test_may_be_the_labels_themselves(self, tmp_path):
        classes = ["['scab']", "['scab', 'rust']", "['rust']", "['healthy']"]
        train = self.TRAIN + "\ne|['rust']"
        competition = loaded(tmp_path, train, "id|labels\nt|['rust']", label="labels", classes=classes)
        assert competition.targets.tolist() == [0, 1, 2, 3, 2]
        brackets = "id|label\na|(x)\nb|(y)\nc|(x)"
        assert loaded(tmp_path, brackets, "id|label\nt|(x)").classes == ("(x)", "(y)")

    @pytest.mark.parametrize("odd", ["rust", "['rust"])
    def test_where_one_is_none_are_refused(self, tmp_path, odd):
        config = pixel_competition(
            tmp_path, self.TRAIN + f"\ne|{odd}", "id|labels\nt|healthy", label="labels", separator=", "
        )
        assert refusal_of(load_competition, config) == (
            "competition.label: cells of column 'labels' are lists, like ['scab'], but others are none "
            f"({odd!r}); write all as lists, with [] where there is no label"
        )

    def test_in_the_sample_alone(self, tmp_path):
        competition = loaded(tmp_path, "id|label\na|x y\nb|y\nc|x", "id|label\nt|['x', 'y']\nu|[]", separator=" ")
        assert handed_in(competition, [0, 1], [1]) == [["t", "['x', 'y']"], ["u", "['y']"]]
        assert competition.remarks == ()


class TestTruth:
    """True and False are 1 and 0, in either table."""

    def test_columns_of_either_are_asked_for_as_the_sample_has_them(self, tmp_path):
        train = "id|x|y\na|True|FALSE\nb|false|1\nc|1.0|true"
        competition = loaded(tmp_path, train, "id|x|y\nt|False|False\nu|False|True", label=["x", "y"])
        assert competition.targets.tolist() == [[True, False], [False, True], [True, True]]
        assert competition.submission.kind == "columns"
        assert handed_in(competition, [1], [0, 1]) == [["t", "False", "True"], ["u", "True", "True"]]

    def test_a_submission_may_have_either_but_not_both_in_a_column(self, tmp_path):
        train = "id|x|y\na|1|0\nb|0|1\nc|1|1"
        form = loaded(tmp_path, train, "id|x|y\nt|0|0\nu|0|0", label=["x", "y"]).submission
        given = form.make(np.array([[True, False], [False, True]]), np.zeros((2, 2)))
        as_words = given.assign(x=["true", "false"])
        assert form.read(as_words, "x").tolist() == [[True, False], [False, True]]
        assert "1 cells are no numbers" in refusal_of(form.validate, given.assign(x=["true", "0"]), "x")

    @pytest.mark.parametrize(
        ("train", "sample", "said"),
        [
            (("False", "True"), ("False", "True"), ("False", "True")),
            (("False", "True"), ("True", "True"), ("False", "True")),
            (("0", "1"), ("False", "False"), ("False", "True")),
            (("false", "true"), ("0", "0"), ("0", "1")),
            (("FALSE", "TRUE"), ("true", "true"), ("false", "true")),
            (("0.0", "1.0"), ("0", "1"), ("0.0", "1.0")),
        ],
    )
    def test_of_two_classes_with_one_label_a_row(self, tmp_path, train, sample, said):
        no, yes = train
        competition = loaded(
            tmp_path, f"id|label\na|{no}\nb|{yes}\nc|{no}\nd|{yes}", f"id|label\nt|{sample[0]}\nu|{sample[1]}"
        )
        assert competition.classes == train
        assert handed_in(competition, 1, 0) == [["t", said[1]], ["u", said[0]]]
        assert len(competition.remarks) == (train != said or (train, sample) == (("0.0", "1.0"), ("0", "1")))

    def test_with_true_before_false_in_letters(self, tmp_path):
        competition = loaded(tmp_path, "id|label\na|false\nb|True\nc|false", "id|label\nt|false")
        assert competition.classes == ("false", "True")  # the second is the positive one


class TestSample:
    """What the sample submission says is compared."""

    HANDED_IN = "; handed in are cat, dog"

    @pytest.mark.parametrize(
        ("cells", "said"),
        [
            (("cat", "dog"), None),
            (("cat", "cat"), None),
            (
                ("healthy", "healthy"),
                "'healthy', in every row of column 'label', is no class; it may only keep the place; handed in "
                "are cat, dog; if labels are to be handed in so, the train table has them in another form",
            ),
            (
                ("0", "1"),
                "'0', '1' are no class (column 'label', in 2 of 2 rows); handed in are cat, dog; if labels are to "
                "be handed in so, the train table has them in another form",
            ),
            (
                ("Cat", "dog"),
                "'Cat' is no class (column 'label', in 1 of 2 rows); handed in are cat, dog; the case of letters "
                "differs, and Kaggle may tell it apart",
            ),
            (
                ("cat ", "dog"),
                "column 'label' spells labels otherwise than the train table: 'cat ' for 'cat'; the train table's "
                "spelling is handed in",
            ),
            (
                ("", ""),
                "column 'label' is empty, so it shows no label; handed in are labels as in the train table: cat, "
                "dog",
            ),
        ],
    )
    def test_cells(self, tmp_path, cells, said):
        competition = loaded(tmp_path, sample=f"id|label\nt|{cells[0]}\nu|{cells[1]}")
        assert competition.remarks == ((f"competition.sample_submission: {said}",) if said else ())

    def test_names_of_classes(self, tmp_path):
        names = {"cat": "Felis", "dog": "Canis"}
        competition = loaded(tmp_path, sample="id|label\nt|Felis\nu|Canis", names=names)
        assert competition.remarks[0].endswith("they are names of classes: set competition.submit_names")
        competition = loaded(tmp_path, sample="id|label\nt|Felis\nu|Canis", names=names, submit_names=True)
        assert competition.remarks == ()
        competition = loaded(tmp_path, names=names, submit_names=True)
        assert "'cat', 'dog' are no class" in competition.remarks[0]
        assert "handed in are Felis, Canis" in competition.remarks[0]

    def test_cells_of_several_labels(self, tmp_path):
        train = "id|label\na|x y\nb|y\nc|x"
        assert loaded(tmp_path, train, "id|label\nt|x y\nu|y x", separator=" ").remarks == ()
        assert (
            loaded(tmp_path, train, "id|label\nt|x,y\nu|x", separator=" ")
            .remarks[0]
            .startswith("competition.sample_submission: 'x,y' is no class (column 'label', in 1 of 2 rows)")
        )
        may_be_empty = loaded(tmp_path, train + "\nd|", "id|label\nt|\nu|", separator=" ")
        assert may_be_empty.remarks == ()

    def test_nothing_is_told_where_it_has_no_rows(self, tmp_path):
        config = pixel_competition(tmp_path, LETTERS, "id|label")
        assert load_competition(config.model_copy(update={"test": None, "test_images": "{id}"})).remarks == ()


class TestClassesWithoutRows:
    """Never predicted where they are allowed."""

    ALLOWED = {"classes_without_rows": "allowed"}

    def test_keep_their_place(self, tmp_path):
        competition = loaded(tmp_path, classes=["dodo", "dog", "cat"], **self.ALLOWED)
        assert (competition.classes, competition.targets.tolist()) == (("dodo", "dog", "cat"), [2, 1, 2, 1])
        assert competition.remarks == ("competition.classes: no training row has 'dodo': never predicted",)

    def test_of_label_columns(self, tmp_path):
        train = "id|x|dodo|y\na|1|0|0\nb|0|0|1\nc|1|0|1"
        competition = loaded(tmp_path, train, "id|x|dodo|y\nt|0|0|0", label=["x", "dodo", "y"], **self.ALLOWED)
        assert competition.targets.sum(axis=0).tolist() == [2, 0, 2]

    @pytest.mark.parametrize("separator", [None, ","])
    def test_of_the_samples_columns(self, tmp_path, separator):
        sample = "id|dodo|dog|cat\nt|0.3|0.3|0.3\nu|0.3|0.3|0.3"
        config = pixel_competition(tmp_path, LETTERS, sample, separator=separator)
        assert refusal_of(load_competition, config).endswith(
            "it has dodo, which is no class; where it has no training row, set "
            "competition.classes_without_rows=allowed"
        )
        competition = loaded(tmp_path, LETTERS, sample, separator=separator, **self.ALLOWED)
        assert competition.classes == ("cat", "dog", "dodo")
        assert competition.submission.class_of == {"dodo": 2, "dog": 1, "cat": 0}
        assert competition.targets.max() == 1

    def test_are_at_most_all_but_two(self, tmp_path):
        config = pixel_competition(
            tmp_path, "id|label\na|x\nb|x\nc|x", "id|label\nt|x", classes=["x", "y"], **self.ALLOWED
        )
        assert refusal_of(load_competition, config) == (
            "competition.classes: less than two classes have a training row; nothing can be learned"
        )

    def test_are_refused_by_default(self):
        assert CompetitionConfig(path="x").classes_without_rows == "refused"
        plainly = CompetitionConfig(path="x").canonical()
        assert "classes_without_rows" not in plainly  # the fingerprint stays


def test_lists_and_other_cells_in_one_column_are_refused(tmp_path):
    train = "id|label\na|['p', 'q']\nb|['p']\nc|nan\nd|['q']\ne|p"
    for separator in (" ", ","):
        config = pixel_competition(tmp_path, train, "id|label\nt|p", separator=separator)
        assert refusal_of(load_competition, config) == (
            "competition.label: cells of column 'label' are lists, like ['p', 'q'], but others are none ('nan', "
            "'p'); write all as lists, with [] where there is no label"
        )


def test_labels_that_look_the_same_are_told_by_their_code_points(tmp_path):
    train = "id|label\na|\u00e9\nb|\u00e9\nc|e\u0301\nd|x"
    (line,) = loaded(tmp_path, train, "id|label\nt|x").remarks
    assert "'\u00e9' (in 2) and 'e\\u0301' (in 1) are '\u00e9'" in line
