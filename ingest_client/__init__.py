"""From a reduced turn to a stored one: the payload contract, the spool, delivery."""
