"""A small repository to review: real files, real mistakes, a real history, and places where a tool must not look."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": "import os\n\n\ndef price(item: str) -> float:\n    return {'tea': 2.5}[item]\n",
    "shop/orders.py": "from shop.prices import price\n\n\ndef order(items=[]):\n    return sum(map(price, items), start=0.0)\n",
    "shop/post.py": "def send(order):\n    try:\n        return order.send()\n    except:\n        return None\n",
    "tools/check.py": "def check() -> bool:\n    return True\n",
    ".venv/lib/hidden.py": "import os\n",
    "notes.md": "# Notes\n",
}
REVIEWED = ["shop/__init__.py", "shop/orders.py", "shop/post.py", "shop/prices.py", "tools/check.py"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "secret.py").write_text("PASSWORD = 'open sesame'\n")
    (folder / "link.txt").symlink_to(tmp_path / "secret.py")
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--no-gpg-sign", "--message", "The shop"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
