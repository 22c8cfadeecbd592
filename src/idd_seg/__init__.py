"""Distilling inter-class distance and position information into small segmentation networks."""

__version__ = "0.1.0"
