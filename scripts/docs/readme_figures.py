"""Copy the figures of the newest evaluated run to docs/images, where the README shows them.

python -m scripts.docs.readme_figures [RUN]      # make figures
python -m scripts.docs.readme_figures --tasks    # the figures of docs/tasks.md

With playwright and a browser at /usr/bin/chromium, the top of its report.html as well.
"""

import shutil
import sys
from pathlib import Path

from convae.evaluation import report
from convae.runs.run import Run
from scripts.project import IMAGES

CHROMIUM = "/usr/bin/chromium"
TASK_FIGURES = {  # (run, its figure) -> the name in docs/images
    ("bottleneck", "code_map"): "code_map",
    ("bottleneck", "interpolation"): "interpolation",
    ("denoise", "reconstructions"): "denoise",
    ("upscale", "reconstructions"): "upscale-task",
    ("segment", "segmentations"): "segment",
    ("anomaly-3", "anomaly_scores"): "anomaly_scores",
    ("generate", "samples"): "samples",
    ("generate", "traversal"): "traversal",
}


def take_screenshot(page: Path, picture: Path) -> None:
    """Write a picture of the top of an HTML file, in 128 colors: the file is small."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        tab = browser.new_page(viewport={"width": 1000, "height": 1240}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=str(picture))
        browser.close()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    if "--tasks" in sys.argv:
        for (name, figure), picture in TASK_FIGURES.items():
            path = Run.find(name).path / "figures" / f"{figure}.png"
            print(shutil.copy(path, IMAGES / f"{picture}.png"))
        raise SystemExit
    run = Run.find(sys.argv[1] if len(sys.argv) > 1 else None)
    for path in sorted((run.path / "figures").glob("*.png")):
        print(shutil.copy(path, IMAGES / path.name))
    if Path(CHROMIUM).exists():
        take_screenshot(report.write(run), IMAGES / "report.png")
        print(IMAGES / "report.png")
