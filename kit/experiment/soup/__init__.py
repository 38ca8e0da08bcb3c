"""Soups: the mean of the weights of a fold's seeds, which predicts as one model."""
