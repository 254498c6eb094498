"""[Gen]: the figures of 'From generalization analysis to optimization designs for state space models'."""
