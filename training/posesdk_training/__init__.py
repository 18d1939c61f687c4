"""Training of the posesdk models: networks, data, losses, loop, evaluation."""
