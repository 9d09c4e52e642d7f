"""From texts to vectors: documents are read into chunks, chunks are embedded, categories are written out as JSON."""
