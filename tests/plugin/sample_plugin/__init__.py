"""A plug-in: a network, a data set and a method."""
