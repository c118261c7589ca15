"""What makes the paper's tables and our models' cards."""
