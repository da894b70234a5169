"""The centred orthonormal Fourier transform over the last two axes, for images of any size.

The origin of an axis of n points is at n // 2, in image and k-space alike; F is unitary, so that F⁻¹ = Fᴴ.
"""

import numpy as np

AXES = (-2, -1)


def fft2c(image: np.ndarray) -> np.ndarray:
    """k-space (…, Y, X) of an image (…, Y, X)."""
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=AXES), norm="ortho"), axes=AXES)


def ifft2c(kspace: np.ndarray) -> np.ndarray:
    """Image (…, Y, X) of a k-space (…, Y, X)."""
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=AXES), norm="ortho"), axes=AXES)
