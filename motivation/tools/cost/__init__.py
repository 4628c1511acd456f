"""What a forward pass costs, what a run has cost, and what it will cost (paper, supplementary section 6).

``python -m motivation cost`` is the command that predicts.
"""
