"""Registry of datasets: versions, pointers, manifests, pins."""
