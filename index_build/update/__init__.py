"""Updates: a run with recordings added, removed or changed, without building it again.

Rows keep their numbers. New recordings visit cells; every list that one of them enters is changed;
lists that lost a member are searched again. What came of it is a delta beside the run that it
extends; the matrix file is written from both. Refuses the formats of matrix and vector set.
"""
