"""Plots of what was trained."""
