"""Weather: downscaling of gridded fields from block means to the fine grid."""
