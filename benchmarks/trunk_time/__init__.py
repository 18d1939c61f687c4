"""Parts of `trunk_peak.py`: a trunk beside the convolutions that a machine is quickest at."""
