"""Kernels: an experiment as Kaggle kernels, from the built file to the fetched runs."""
