"""What a compiled program costs on a TPU: collectives in its HLO, estimated time, peak rates of chips."""
