"""Files and run directories, on local disks and in object stores alike."""
