"""Measuring: what is measured in which order, each configuration in a process of its own."""
