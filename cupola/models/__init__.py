"""Whole models; families are recipes and name tables, not folders."""
