"""Export: a bundle as something that runs where scigen is not installed."""
