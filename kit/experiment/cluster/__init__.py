"""Runs on a Ray cluster: nodes, what travels to them, and the tasks that they carry out."""
