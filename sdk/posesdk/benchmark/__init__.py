"""`posesdk benchmark`: how fast and how accurate the variants of bundles are on this machine, measured side by side."""
