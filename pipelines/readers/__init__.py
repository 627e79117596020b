"""Readers: one module per family of formats, all giving blocks of rows with positions."""
