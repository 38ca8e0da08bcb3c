"""Kaggle: the image, the sandbox, the official client."""
