"""Files, checksums, run directories and their leases, on local disks and in object stores."""
