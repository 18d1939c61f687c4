"""Networks of the posesdk models."""
