"""The paper's method without any training program around it: pair, conditions, switch, optimizer state."""
