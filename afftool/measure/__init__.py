"""Functions that read numbers off a case: what it costs, how long it takes, what it holds in memory."""
