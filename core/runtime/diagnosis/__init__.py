"""What a person is shown of a diagnosis: claims, a table, figures; in a report or alone."""
