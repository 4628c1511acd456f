"""Choose k by cross-validation on the training set (paper, section 4).

`plan` lists the runs, `motivation.tools.sweep` makes them, `report` reads them and chooses.
"""
