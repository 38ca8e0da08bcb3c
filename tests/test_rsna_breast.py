"""Own code of the ready config of rsna-breast-cancer-detection, against the competition's own definitions."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dicom import write_dicom

from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import score

CONFIGS = Path(__file__).parents[1] / "configs"
DECODER, METRIC = "rsna_breast.py:read_dicom", "rsna_breast.py:probabilistic_f1"


def own(section, **content):
    return section.model_validate(content, context={"folder": CONFIGS})


def decoded(path: Path) -> np.ndarray:
    from kit.data.config import DataConfig

    return own(DataConfig, decoder=DECODER).decoder.function(path)


def pfbeta(labels, predictions, beta):
    """The competition's published definition, line by line."""
    true_count = true_positive = false_positive = 0.0
    for label, prediction in zip(labels, predictions, strict=True):
        prediction = min(max(prediction, 0), 1)
        if label:
            true_count += 1
            true_positive += prediction
        else:
            false_positive += prediction
    if true_positive + false_positive == 0 or true_count == 0:
        return 0.0
    precision, recall = true_positive / (true_positive + false_positive), true_positive / true_count
    if precision > 0 and recall > 0:
        return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    return 0.0


@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=30),
    beta=st.sampled_from([0.5, 1.0, 2.0]),
)
@settings(max_examples=60, deadline=None, database=None)
def test_the_metric_is_the_competitions(rows, beta):
    truth, second = (np.array(column) for column in zip(*rows, strict=True))
    probabilities = np.stack([1 - second, second], axis=1)
    config = own(ScoringConfig, metric={"name": METRIC, "beta": beta})
    value = score(truth, (second >= 0.5).astype(int), config, probabilities)
    assert value == pytest.approx(pfbeta(truth, second, beta), abs=1e-12)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_mammogram_is_light_on_black(tmp_path, bits, inverted):
    levels = np.random.default_rng(0).integers(0, 2**bits, (6, 5)).astype(np.uint16)
    levels[0, 0], levels[0, 1] = 0, 2**bits - 1
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    write_dicom(tmp_path / "1.dcm", levels, PhotometricInterpretation=kind, BitsStored=bits, HighBit=bits - 1)
    share = levels / (2**bits - 1)
    np.testing.assert_allclose(decoded(tmp_path / "1.dcm"), 255 * (1 - share if inverted else share), atol=0.51)


def test_the_window_of_the_file_is_taken(tmp_path):
    levels = np.array([[0, 500, 1000, 1500, 4095]], dtype=np.uint16)
    write_dicom(tmp_path / "1.dcm", levels, WindowCenter=1000, WindowWidth=1001)
    expected = 255 * np.clip((levels - 999.5) / 1000 + 0.5, 0, 1)
    np.testing.assert_allclose(decoded(tmp_path / "1.dcm"), expected, atol=0.51)
    write_dicom(tmp_path / "2.dcm", levels, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID")
    sigmoid = 1 / (1 + np.exp(-4 * (levels.astype(float) - 2048) / 1000))  # PS3.3 C.11.2.1.3.1
    expected = 255 * (sigmoid - sigmoid.min()) / np.ptp(sigmoid)
    np.testing.assert_allclose(decoded(tmp_path / "2.dcm"), expected, atol=0.51)


def test_an_empty_scan_is_black(tmp_path):
    write_dicom(tmp_path / "1.dcm", np.full((3, 3), 9, np.uint16))
    assert not decoded(tmp_path / "1.dcm").any()
