"""The ground everything stands on: settings, kinds, errors, schema, mergeable states, identity, seeds, clock, units, logs.

Imports nothing of the project and no heavy library: the served side uses it too.
"""
