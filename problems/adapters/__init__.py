"""What stands between a public data set as it is downloaded and a problem: columns, golds, choices, presets."""
