"""What a program calls: `idd_seg.train` and `idd_seg.distil`."""
