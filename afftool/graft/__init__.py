"""Fusions put into a network of the user's own: the sites of its graph, and what is grafted there."""
