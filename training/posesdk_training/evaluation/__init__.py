"""How good a model is: every figure of `posesdk-train evaluate`, from one pass of the device's decoder."""
