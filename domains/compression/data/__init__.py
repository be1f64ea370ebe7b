"""Photographs → crops with their rates; pictures as files hold them."""
