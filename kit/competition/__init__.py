"""What Kaggle gives and wants back: tables, labels, folds, submissions, the embedded digits competition."""
