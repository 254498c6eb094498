"""[StableSSM]: the figures of 'StableSSM: alleviating the curse of memory in state-space models through stable
reparameterization'."""
