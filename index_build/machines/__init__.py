"""How many machines, for how many hours, at what cost: a model fitted to runs that were measured.

`calibration` holds what was measured, `law` how a stage grows; `model` turns both into times, and
`choice` into machines and money. Refuses to run anything.
"""
