"""Choose k by cross-validation on the training set (paper, section 4).

`plan` says which runs there are, `motivation.tools.sweep` makes them, `report` and `plot` read them.
"""
