"""Providers make and destroy machines and say what they cost; `base.py` is the contract."""
