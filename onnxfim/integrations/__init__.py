"""Where other tools keep what an audit found: MLflow's runs, Hugging Face's model cards."""
