"""Tasks for training: where they come from, public rows, sets, streams and generators."""
