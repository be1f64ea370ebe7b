"""The verbs that only this domain has."""
