"""Networks: tensors in, tensors out. No files, no loops, no devices."""
