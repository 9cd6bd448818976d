"""What the processes export and record: names, units, help texts; and what each waits for."""
