"""What one trial does: methods, models, data, sparsity core. Knows torch; never Ray, Optuna, pandas or sweeper."""
