"""Own code of rsna-breast-cancer-detection: a decoder of DICOM files, and the competition's metric."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut


def read_dicom(path: Path) -> np.ndarray:
    """Return a mammogram, windowed as its file says, uint8 [height, width]: the breast light on black.

    The 10 to 16 bits of the scanners become 8 between the darkest and the lightest level of the image.
    """
    file = pydicom.dcmread(path)
    levels = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file).astype(np.float32)
    levels = (levels - levels.min()) / max(np.ptp(levels), 1e-6)
    if file.PhotometricInterpretation == "MONOCHROME1":  # its highest level is black
        levels = 1 - levels
    return np.round(255 * levels).astype(np.uint8)


def probabilistic_f1(truth: np.ndarray, probabilities: np.ndarray, beta: float = 1.0) -> float:
    """Return the competition's pF1: F of counts in which a prediction is as much as its probability.

    Parameters
    ----------
    truth : ndarray
        int [rows], 1 where there is cancer.
    probabilities : ndarray
        float [rows], of cancer.
    beta : float
        That of F-beta.
    """
    hits, square = float(probabilities[truth == 1].sum()), beta**2
    found = float(probabilities.sum())
    return (1 + square) * hits / (square * int(truth.sum()) + found) if hits else 0.0
