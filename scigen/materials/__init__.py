"""Materials: conditional multiphase microstructures."""
