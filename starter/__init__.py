"""Builds the tiny policy of the CPU demo from nothing."""
