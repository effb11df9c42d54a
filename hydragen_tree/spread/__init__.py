"""One run drawn by several workers: the devices of one machine, or the actors of a Ray cluster."""
