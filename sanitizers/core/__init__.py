"""What every sanitizer builds on: data, evidence, calibration, policy."""
