"""Heads: the numbers of scikit-learn, of slow obvious versions, and no look at rows that are not theirs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.svm import LinearSVC

from kit.core.errors import KitError
from kit.scoring.calibration import calibrate, log_loss, probabilities
from kit.scoring.heads import HeadRows, Knn, Logistic, Prototypes, Ridge, Svm

HEADS = [Logistic(C=(0.01, 1.0)), Ridge(alphas=(1.0, 100.0)), Svm(C=(1e-3, 1e-1)), Knn(), Prototypes()]


def made_rows(rows=90, numbers=12, classes=3, seed=0, several=False, apart=2.0) -> HeadRows:
    generator = np.random.default_rng(seed)
    if several:
        targets = generator.random((rows, classes)) < 0.4
        means = targets @ generator.normal(size=(classes, numbers))
    else:
        targets = np.arange(rows) % classes
        means = generator.normal(size=(classes, numbers))[targets]
    features = (apart * means + generator.normal(size=(rows, numbers))).astype(np.float32)
    features[:, 0] = 7.0  # tells nothing, and has no deviation
    return HeadRows(features, targets, classes, np.arange(rows) // classes % 3)


def standard(rows: HeadRows, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train, test = (np.sign(each) * np.sqrt(np.abs(each.astype(np.float64))) for each in (rows.features, others))
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_is_scikit_learns(classes):
    rows, asked = made_rows(classes=classes), made_rows(classes=classes, seed=1).features
    head = Logistic(C=(0.05,))
    arrays, strength = head.fit(rows)
    train, test = standard(rows, asked)
    model = LogisticRegression(C=strength, max_iter=1000).fit(train, rows.targets)
    np.testing.assert_allclose(head.predict(arrays, asked), model.predict_proba(test), atol=1e-6)


def test_logistic_of_several_labels_is_one_a_label():
    rows, asked = made_rows(several=True), made_rows(several=True, seed=1).features
    head = Logistic(C=(0.1,))
    arrays, _ = head.fit(rows)
    train, test = standard(rows, asked)
    each = [LogisticRegression(C=0.1, max_iter=1000).fit(train, labels) for labels in rows.targets.T]
    expected = np.stack([model.predict_proba(test)[:, 1] for model in each], axis=1)
    np.testing.assert_allclose(head.predict(arrays, asked), expected, atol=1e-6)


@pytest.mark.parametrize("numbers", [12, 200])
@pytest.mark.parametrize("alpha", [1.0, 1000.0])
def test_ridge_scores_are_scikit_learns(numbers, alpha):
    rows, asked = made_rows(numbers=numbers), made_rows(numbers=numbers, seed=1).features
    head = Ridge(alphas=(alpha,))
    train, test = standard(rows, asked)
    (fitted,) = head.fits(train, rows, [alpha])
    expected = RidgeClassifier(alpha=alpha).fit(train, rows.targets).decision_function(test)
    np.testing.assert_allclose(head.scores(fitted, test), expected, atol=1e-6)


def test_svm_scores_are_scikit_learns():
    rows, asked = made_rows(), made_rows(seed=1).features
    head = Svm(C=(1e-2,))
    train, test = standard(rows, asked)
    (fitted,) = head.fits(train, rows, [1e-2])
    expected = LinearSVC(C=1e-2, dual=False).fit(train, rows.targets).decision_function(test)
    np.testing.assert_allclose(head.scores(fitted, test), expected, atol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 4, 90])
def test_knn_is_scikit_learns_drawn_to_the_prior(neighbours):
    rows, asked = made_rows(), made_rows(seed=1).features
    head = Knn(neighbours=(neighbours,))
    arrays, _ = head.fit(rows)
    train, test = standard(rows, asked)
    model = KNeighborsClassifier(neighbours, metric="cosine").fit(train, rows.targets)
    expected = (model.predict_proba(test) * neighbours + 1 / 3) / (neighbours + 1)
    np.testing.assert_allclose(head.predict(arrays, asked), expected, atol=1e-6)


def test_knn_of_several_labels_counts_each_label():
    rows, asked = made_rows(several=True), made_rows(several=True, seed=1).features
    head = Knn(neighbours=(5,))
    arrays, _ = head.fit(rows)
    train, test = (normalize(each) for each in standard(rows, asked))
    for row, found in zip(test, head.predict(arrays, asked), strict=True):
        nearest = np.argsort(-(train @ row))[:5]
        share = (rows.targets[nearest].sum(axis=0) + rows.targets.mean(axis=0)) / 6
        np.testing.assert_allclose(found, share, atol=1e-6)


def test_prototypes_are_class_means():
    rows, asked = made_rows(), made_rows(seed=1).features
    head = Prototypes()
    train, test = (normalize(each) for each in standard(rows, asked))
    means = normalize(np.stack([train[rows.targets == label].mean(axis=0) for label in range(3)]))
    arrays, _ = head.fit(rows)
    scores = test @ means.T
    assert (
        head.predict(arrays, asked).argmax(axis=1) == (arrays["gain"] * scores + arrays["bias"]).argmax(axis=1)
    ).all()
    (fitted,) = head.fits(standard(rows, asked)[0], rows, [0.0])
    np.testing.assert_allclose(head.scores(fitted, standard(rows, asked)[1]), scores, atol=1e-9)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_each_head_learns_and_gives_probabilities(head, several):
    rows, asked = made_rows(several=several, rows=150), made_rows(several=several, rows=150).features
    arrays, strength = head.fit(rows)
    found = head.predict(arrays, asked)
    assert strength in head.strengths
    assert ((found >= 0) & (found <= 1)).all()
    if not several:
        np.testing.assert_allclose(found.sum(axis=1), 1)
    baseline = np.tile(rows.one_against_rest.mean(axis=0), (len(asked), 1))
    assert log_loss(found, rows.targets) < 0.6 * log_loss(baseline, rows.targets)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_class_without_a_row_is_never_predicted(head):
    rows = made_rows()
    arrays, _ = head.fit(HeadRows(rows.features, rows.targets, 4, rows.parts))
    found = head.predict(arrays, rows.features)
    assert (found[:, 3] < 1e-9).all()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_class_of_one_part_alone_can_be_fitted(head):
    rows = made_rows()
    targets = rows.targets.copy()
    targets[(rows.parts != 0) & (targets == 2)] = 0
    arrays, _ = head.fit(HeadRows(rows.features, targets, 3, rows.parts))
    assert np.isfinite(head.predict(arrays, rows.features)).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_label_that_all_or_no_rows_have_can_be_fitted(head):
    rows = made_rows(several=True)
    targets = rows.targets.copy()
    targets[:, 0], targets[:, 1] = True, False
    arrays, _ = head.fit(HeadRows(rows.features, targets, 3, rows.parts))
    found = head.predict(arrays, rows.features)
    assert (found[:, 0] > 0.9).all()
    assert (found[:, 1] < 0.1).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_random_labels_stay_at_chance_though_a_number_tells_the_row(head):
    """What strength and calibration are chosen by never saw the rows that are scored."""
    generator = np.random.default_rng(3)
    right = []
    for _ in range(4):
        features = generator.normal(size=(120, 60)).astype(np.float32)
        features[:, 0] = np.arange(120)  # like an id: fitted exactly by what sees its row
        rows = HeadRows(features, generator.integers(0, 2, 120), 2, np.arange(120) % 4)
        held_out = rows.parts == 3
        arrays, _ = head.fit(rows.of(~held_out))
        right.append((head.predict(arrays, features[held_out]).argmax(axis=1) == rows.targets[held_out]).mean())
        found = head.predict(arrays, features[held_out])
        assert log_loss(found, rows.targets[held_out]) < 1.2  # and is not sure of what it does not know
    assert abs(np.mean(right) - 0.5) < 0.14  # three deviations of 120 rows


def test_strength_is_chosen_by_rows_that_did_not_fit():
    generator = np.random.default_rng(0)
    rows = made_rows(rows=60, numbers=100, apart=0.3)
    noise = HeadRows(rows.features, generator.permutation(rows.targets), 3, rows.parts)
    _, strength = Logistic(C=(1e-5, 1.0)).fit(noise)
    assert strength == 1e-5  # the other fits its own rows without a fault


def test_rows_of_no_part_train_and_are_never_left_out():
    rows = made_rows()
    parts = rows.parts.copy()
    parts[rows.parts == 2] = -1
    seen = []

    class Noting(Logistic):
        def fits(self, features, rows, strengths):
            seen.append((len(rows.features), set(rows.parts.tolist())))
            yield from super().fits(features, rows, strengths)

    Noting(C=(0.1,)).fit(HeadRows(rows.features, rows.targets, 3, parts))
    assert seen == [(60, {1, -1}), (60, {0, -1}), (90, {0, 1, -1})]


def test_refusals():
    rows = made_rows()
    with pytest.raises(KitError, match="two parts"):
        Logistic().fit(HeadRows(rows.features, rows.targets, 3, np.zeros(90, dtype=np.int64)))
    spoilt = rows.features.copy()
    spoilt[3, 3] = np.nan
    with pytest.raises(KitError, match="not finite"):
        Logistic().fit(HeadRows(spoilt, rows.targets, 3, rows.parts))
    arrays, _ = Prototypes().fit(rows)
    with pytest.raises(KitError, match="12 numbers an image, the features have 5"):
        Prototypes().predict(arrays, rows.features[:, :5])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.2, 8))
def test_calibration_is_never_worse_than_a_scale_or_none(seed, several, size):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 3, 80)
    scores = (np.eye(3)[targets] + generator.normal(size=(80, 3))) * size
    truth = (generator.random((80, 3)) < 0.5) | (scores > size) if several else targets
    gain, bias = calibrate(scores, truth)
    found = log_loss(probabilities(scores, gain, bias, several), truth)
    for factor in (0.1 / size, 1.0, 1 / size):
        plain = probabilities(scores, np.full(3, factor), np.zeros(3), several)
        assert found <= log_loss(plain, truth) + 5e-3  # but for the penalty


def test_what_no_row_tells_of_takes_no_part_in_the_calibration():
    """Scores of class 2 are known of rows of others alone: they would say that it is never right."""
    generator = np.random.default_rng(0)
    targets = np.arange(90) % 3
    scores = 4 * np.eye(3)[targets] + generator.normal(size=(90, 3))
    scores[targets == 2, 2] = -np.inf
    gain, bias = calibrate(scores, targets)
    known = targets < 2
    alone = calibrate(scores[known][:, :2], targets[known])
    np.testing.assert_allclose(gain[:2], alone[0], rtol=1e-3)
    np.testing.assert_allclose(bias, [*alone[1], 0], atol=1e-3)


def test_log_loss_is_scikit_learns():
    chances = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert log_loss(chances, np.array([0, 1])) == pytest.approx(
        sklearn_log_loss([0, 1], chances, labels=[0, 1, 2])
    )
