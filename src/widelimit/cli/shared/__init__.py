"""What several commands need: files, pages, figures, progress."""
