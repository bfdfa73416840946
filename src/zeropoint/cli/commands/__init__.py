"""A file for each command: parse, call one function of zeropoint.api, render."""
