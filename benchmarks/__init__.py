"""Measurements on real tables. ``make bench`` runs them all; see ``benchmarks/README.md``."""
