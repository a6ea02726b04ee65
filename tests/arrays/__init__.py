"""Simulated storage arrays and their tools, and the tests that run the agent against them."""
