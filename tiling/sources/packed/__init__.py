"""Images that are delivered in a zip, tar or gzip file."""
