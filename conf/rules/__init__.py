"""Rules between keys, by what they are about."""
