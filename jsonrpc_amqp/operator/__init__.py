"""
For operators: dead letters and permissions.

Built on the public client. Neither ``client`` nor ``server`` imports it.
"""
