"""How good speech is: judges that hear and rate it, measures, and the table of them."""
