"""The demo's input: a dump that looks like AcousticBrainz and is made up entirely."""
