"""What the benchmarks of LOGO-CAP with HRNet-W32 share: random weights, conversion, fixed maps, turns."""
