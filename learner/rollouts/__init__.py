"""Groups on their way to a step: admitted, collected, and chosen within a window."""
