"""Measurements. Every bench is `python -m bench.NAME [--quick] [--json FILE]`; `python -m bench` runs them all."""
