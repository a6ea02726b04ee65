"""What runs in the virtual machine, where XFS enforces project quotas: both processes, as in production."""
