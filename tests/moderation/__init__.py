"""Tests of banks."""
