"""Translations of other systems' files into events. Pure but for reading the file: what is submitted, and how, is for the caller.

Each loses nothing: every line of the input ends as events, as a listed repeat or as a listed refusal."""
