"""Where networks are sampled."""

import torch

from scigen.errors import UserError


def pick(name: str) -> torch.device:
    """The device called auto, cpu, gpu, cuda, cuda:1 …; auto takes a GPU where there is one.

    Raises:
        UserError: if it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device({"gpu": "cuda"}.get(name, name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={name} is not to be had here ({str(error).splitlines()[0]}): use auto or cpu."
        ) from error
    return device
