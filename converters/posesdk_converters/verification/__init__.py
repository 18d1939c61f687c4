"""Every variant against the float model: parity, gate, fallback to float layers, report."""
