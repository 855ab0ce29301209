"""Dask clusters on several hosts: inventory, certificates, services over SSH, connection files.

Owns everything between "these hosts" and "a scheduler address that only holders of a certificate
can talk to". Refuses to make or destroy machines (`vm_scripts/`) and knows no stage.
"""
