"""One file for each provider, behind one port."""
