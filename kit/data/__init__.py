"""Images → batches: decoding, pixel cache, augmentation, order."""
