"""Compares methods on the same data under the same protocols and reports quality, cost and provenance."""
