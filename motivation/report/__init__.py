"""Results of runs in the paper's terms: means over seeds, accuracy per FLOPs, beside the paper's own figures.

``python -m motivation.report RUN ...``
"""

from motivation.report.metrics import acc_f_ratio, acc_per_flops

__all__ = ["acc_f_ratio", "acc_per_flops"]
