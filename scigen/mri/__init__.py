"""MRI: images from undersampled k-space, y = M F S x + n."""
