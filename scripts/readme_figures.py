"""Copy the newest evaluated run's pictures to docs/images, where the README shows them.

python scripts/readme_figures.py [RUN]      # make figures
"""

import shutil
import sys
from pathlib import Path

from convae.run import Run

TARGET = Path(__file__).parents[1] / "docs/images"

run = Run.find(sys.argv[1] if len(sys.argv) > 1 else None)
for picture in sorted((run.path / "figures").glob("*.png")):
    print(shutil.copy(picture, TARGET / picture.name))
