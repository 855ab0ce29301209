"""Which library, with which parameters: methods behind one contract, and their measurement."""
