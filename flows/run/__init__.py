"""Stages of one run, as plain functions."""
