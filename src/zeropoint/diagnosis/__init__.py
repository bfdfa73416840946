"""What this machine can do for quantized networks: found, timed, and said in a sentence."""
