"""Choosing k by cross-validation on the training set (paper, section 4).

`plan` says which runs there are, `runner` makes them, `report` and `plot` read them.
"""
