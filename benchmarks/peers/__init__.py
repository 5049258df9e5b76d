"""What the bars are measured against, each in a process and environment of its own."""
