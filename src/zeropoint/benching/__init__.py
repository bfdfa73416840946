"""How fast networks run on this machine, side by side: latency, memory, energy, and where the time goes."""
