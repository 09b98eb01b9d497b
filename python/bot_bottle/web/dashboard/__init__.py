"""What does the operator's browser get? The pages, the API behind them, and nothing without a login of this host."""
