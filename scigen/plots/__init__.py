"""One style and the panels that fields share: matplotlib pictures, tables and the report page."""
