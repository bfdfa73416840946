"""What was seen in a tensor, as a mergeable summary, and the solvers that turn it into a range."""
