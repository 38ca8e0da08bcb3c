"""DICOM files, as small as they may be."""

from pathlib import Path

import numpy as np


def write_dicom(path: Path, levels: np.ndarray, **tags) -> None:
    """Write grey levels, uint16 [height, width] of 12 bits, as an image without compression."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = levels.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PhotometricInterpretation = "MONOCHROME2"
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = levels.astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)
