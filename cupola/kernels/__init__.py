"""Operations: one folder each, several implementations, match the reference or refuse."""
