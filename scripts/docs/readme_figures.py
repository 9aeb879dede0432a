"""Copy the newest evaluated run's pictures to docs/images, where the README shows them.

python -m scripts.docs.readme_figures [RUN]      # make figures
python -m scripts.docs.readme_figures --tasks    # those of docs/tasks.md

With playwright and a browser at /usr/bin/chromium, the top of its report.html as well.
"""

import shutil
import sys
from pathlib import Path

from convae.evaluation import report
from convae.runs.run import Run

TARGET = Path(__file__).parents[2] / "docs/images"
CHROMIUM = "/usr/bin/chromium"
OF_TASKS = {  # (run, its figure) -> the picture's name in docs/images
    ("bottleneck", "code_map"): "code_map",
    ("bottleneck", "interpolation"): "interpolation",
    ("denoise", "reconstructions"): "denoise",
    ("upscale", "reconstructions"): "upscale-task",
    ("segment", "segmentations"): "segment",
    ("anomaly-3", "anomaly_scores"): "anomaly_scores",
}


def photograph(page: Path, picture: Path) -> None:
    """A picture of the top of an HTML file, in 128 colors: it has few, and the file is small."""
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
        for (name, figure), picture in OF_TASKS.items():
            path = Run.find(name).path / "figures" / f"{figure}.png"
            print(shutil.copy(path, TARGET / f"{picture}.png"))
        raise SystemExit
    run = Run.find(sys.argv[1] if len(sys.argv) > 1 else None)
    for path in sorted((run.path / "figures").glob("*.png")):
        print(shutil.copy(path, TARGET / path.name))
    if Path(CHROMIUM).exists():
        photograph(report.write(run), TARGET / "report.png")
        print(TARGET / "report.png")
