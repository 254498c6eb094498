"""Linear models and linear functionals, of which everything is exact: kernels, their distances, fits without gradient descent."""
