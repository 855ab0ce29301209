"""The neighbours of everyone: partition, shards, self-join, merge, and their order as a build.

Refuses the file formats of the products, which `dumps` writes from the blocks made here.
"""
