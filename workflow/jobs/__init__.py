"""What the rules call: each module reads a step's files, calls `readout`, and writes the step's tables."""
