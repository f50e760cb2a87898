"""Raw media: files, cameras, microphones, typed lines and generated clips as timed chunks."""
