"""WEKA's REST API v2 as far as tokens, file systems, directory quotas, health and statistics go."""
