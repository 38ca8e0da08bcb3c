"""What every room stands on: errors, files, paths, runs, settings. It knows no other room."""
