"""Many runs by one command: where they run (launchers) and what they try (a search by Optuna)."""
