"""Federated rounds of mcit on Flower."""
