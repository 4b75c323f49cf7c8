"""The cost of a compiled program on a TPU: collectives in its HLO, estimated time, peak rates of chips."""
