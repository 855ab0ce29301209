"""Machines up, job, machines down: on Hetzner Cloud, on hosts that are there, or as local VMs.

Owns what is running and what it costs. Drives the program through its command line and through
`nearfield.clusters`; refuses any stage's logic, and anything that a machine image can hold.
"""
