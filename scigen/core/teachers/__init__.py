"""Teachers from elsewhere: other libraries' files and functions as one kind of denoiser, a file a kind."""
