"""What a model's inputs mean, as plain data: table schema, text, image."""
