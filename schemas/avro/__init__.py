"""Avro: generated from the pydantic classes, committed in this folder, and never changed once committed."""
