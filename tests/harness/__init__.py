"""What the end-to-end suites share: a running agent, its two APIs seen from outside, and ways to break a connection."""
