"""Killable grader processes behind one queue."""
