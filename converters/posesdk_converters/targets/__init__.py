"""One module per `--target` value, found by name."""
