"""Bundles: a network with its weights and its card; the shipped ones lie here."""
