"""The page to try a model: one file, which loads nothing from elsewhere."""

import base64
import hashlib
import re
from importlib import resources


def load_page() -> tuple[bytes, str]:
    """The page, and the policy by which a browser runs nothing but its own script."""
    text = resources.files("jaxtune.serving").joinpath("page.html").read_text(encoding="utf-8")
    policy = [
        "default-src 'none'",
        f"script-src {_digest(text, 'script')}",
        f"style-src {_digest(text, 'style')}",
        "connect-src 'self'",
        "img-src blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return text.encode(), "; ".join(policy)


def _digest(text: str, tag: str) -> str:
    """What stands for the one element of a kind, in a policy."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
