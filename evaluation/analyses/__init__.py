"""What training has changed: SPARKLE's three paired axes, and what a gain in accuracy is made of."""
