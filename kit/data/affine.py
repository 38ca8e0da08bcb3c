"""albumentations' Affine with less work around the pixels, and the very same pixels."""

import os
from typing import Any

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the network for a newer version
import albumentations as A
import albumentations.augmentations.geometric.functional as geometric

KNOWN = ("2.0.8",)  # those whose Affine draws and computes as below
NEARLY = 1e-3  # far above what albumentations takes for no difference
MOST_CHANNELS = 4  # that OpenCV warps at once


class Affine(A.Affine):
    """albumentations' own, without the matrix for boxes, which images have none of, and with a cheap look for 1.

    It takes the same draws in the same order. Of small images most of the time is spent around the warp.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw what the image is moved by, and return its matrix."""
        if self.fit_output:
            return super().get_params_dependent_on_data(params, data)
        shape = params["shape"][:2]
        translate, shear = self._get_translate_params(shape), self._get_shear_params()
        scale = self._get_scale(self.scale, self.keep_ratio, self.balanced_scale, self.py_random)
        rotate, centre = self.py_random.uniform(*self.rotate), geometric.center(shape)
        matrix = geometric.create_affine_transformation_matrix(translate, shear, scale, rotate, centre)
        return {"rotate": rotate, "scale": scale, "matrix": matrix, "bbox_matrix": None, "output_shape": shape}

    def apply(
        self, img: np.ndarray, matrix: np.ndarray, output_shape: tuple[int, int], **params: Any
    ) -> np.ndarray:
        """Warp an image."""
        (a, b, x), (c, d, y), _ = matrix.tolist()
        nearly_1 = max(abs(a - 1), abs(b), abs(x), abs(c), abs(d - 1), abs(y)) < NEARLY
        if nearly_1 or self.fit_output or img.ndim != 3 or img.shape[2] > MOST_CHANNELS:
            return super().apply(img, matrix=matrix, output_shape=output_shape, **params)
        warped = cv2.warpAffine(
            img,
            matrix[:2],
            output_shape[::-1],
            flags=self.interpolation,
            borderMode=self.border_mode,
            borderValue=geometric.extend_value(self.fill, img.shape[2]),
        )
        return warped if warped.ndim == 3 else warped[:, :, None]


def affine() -> type[A.Affine]:
    """Return the class that a config's `Affine` is: ours where albumentations' is known to do the same."""
    return Affine if A.__version__ in KNOWN else A.Affine
