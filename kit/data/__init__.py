"""From images to batches: decoding, pixel cache, augmentation and the order of samples."""
