"""Walks of the vendors' own Python clients over the simulators: the shapes are the vendors', not ours."""
