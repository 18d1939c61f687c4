"""An evaluation for readers: tables, charts and pictures from the plain values of its report."""
