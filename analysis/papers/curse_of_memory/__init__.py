"""[CoM]: the figures of 'On the curse of memory in recurrent neural networks: approximation and optimization analysis'."""
