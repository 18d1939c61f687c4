"""A training run: its steps, its folder and state, its log, and the looks taken at it on the way."""
