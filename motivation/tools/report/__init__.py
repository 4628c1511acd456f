"""Results of runs in the paper's terms: means over seeds, accuracy per FLOPs, beside the paper's own figures."""
