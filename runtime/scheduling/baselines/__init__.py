"""Systems of the literature, for comparison only: each a choice of the scheduler's parts plus what is its own."""
