"""How many machines, for how many hours, at what cost: a model fitted to runs that were measured.

`calibration` holds what was measured, `model` turns it into times, `choice` into machines and
money. Refuses to run anything.
"""
