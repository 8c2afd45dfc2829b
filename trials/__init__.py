"""What one trial does: methods, models, data and the sparsity core. Knows torch; never Ray, Optuna, pandas or sweeper."""
