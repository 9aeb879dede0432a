"""Generate: a variational autoencoder, which makes new images of random codes."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import prod
from typing import Any

import numpy as np

from convae.arrays import Floats, Images
from convae.config import task_schema
from convae.data.loading import Split, TrainingData
from convae.tasks import likelihood, metrics, sample_quality
from convae.tasks.baselines import PCA_PIXELS, Baseline
from convae.tasks.latent_baselines import gaussian_pca, mean_image
from convae.tasks.reconstruct import Reconstruct
from convae.tasks.task import EVALUATION, Evaluation, Examples, Indices, example_generator

SAMPLES, IMAGES = 500, 1000  # codes for each of so many images in the importance-weighted bound
COUNTED = 1000  # generated images whose digits are counted
MARGINS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # of the probabilities of PCA, which are rough


class Generate(Reconstruct):
    """The code of an image is drawn from the normal distribution that the encoder gives.

    Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014; with another `kl_weight` than
    1 it is that of Higgins et al., "beta-VAE", ICLR 2017. The metrics always have the weight 1.
    """

    units: Mapping[str, str] = {
        "elbo": "nats per image, evidence lower bound of its log-likelihood: higher is better",
        "bits_per_dim": "-elbo in bits per pixel value: lower is better",
        "reconstruction": "nats per image, its cross-entropy given a code",
        "kl": "nats per image, KL divergence of the code from a standard normal",
    }
    figures = (
        "reconstructions", "samples", "traversal", "best_and_worst", "error_by_class", "code",
    )  # fmt: skip
    description = "Generates images"
    headline = chart_metric = class_metric = ranking_metric = "elbo"
    output_metric = "reconstruction"
    compared_baselines = ("gaussian_pca",)
    always_random = True
    settings: task_schema.Generate

    def examples(self, split: Split, indices: Indices, generator: np.random.Generator) -> Examples:
        """Return the images at `indices` of `split`, with noise for their codes."""
        examples = super().examples(split, indices, generator)
        if self.settings.binarize:
            images = likelihood.binarized(examples.targets, generator)
            examples = Examples(images, images)
        shape = len(examples), *self.config.model_summary.code_shape
        return replace(examples, noise=generator.standard_normal(shape, np.float32))

    def reference_losses(self, train: Split, examples: Examples) -> tuple[float, float]:
        """Return the entropy of the images, and the loss of the mean image, in nats per image.

        A model whose codes do not depend on the image (posterior collapse) is no better than that.
        """
        floor, baseline = super().reference_losses(train, examples)
        pixels = prod(self.image_shape)
        return floor * pixels, baseline * pixels

    def score(self, model: Any, examples: Examples) -> metrics.Scores:
        """Return the evidence lower bound of each example by a LatentModel, and its terms."""
        noise = examples.noise
        assert noise is not None  # noqa: S101 - `examples` makes it
        flat = noise.reshape(len(noise), -1)[:, : model.code_size]
        return likelihood.elbo(model, examples.inputs, examples.targets, flat)

    def scores(self, targets: Images, outputs: Floats) -> metrics.Scores:
        """Return the cross-entropy of each output in nats per image, and its squared error."""
        return {
            "reconstruction": -likelihood.log_likelihood(targets, outputs),
            "mse": self.error(targets, outputs),
        }

    def baselines(self, data: TrainingData) -> dict[str, Baseline]:
        """Return the mean image, and PCA with a normal distribution of its codes."""
        images = data.train.center(self.image_shape).images
        found: dict[str, Baseline] = {"mean_image": mean_image(images)}
        size = self.config.model_summary.code_size
        if size < prod(self.image_shape) <= PCA_PIXELS:
            tuning = self.evaluation_examples(data.validation)[slice(1000)]
            pca = gaussian_pca(images, size)
            candidates = [replace(pca, margin=margin) for margin in MARGINS]
            bounds = [self.score(model, tuning)["elbo"].mean() for model in candidates]
            found["gaussian_pca"] = candidates[int(np.argmax(bounds))]
        return found

    def extra_metrics(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return the importance-weighted bound, active units, and how good samples are.

        The bounds are also those of binarized digits, which publications use.
        """
        model, seed = evaluation.model, self.config.seed
        images = evaluation.examples.targets
        binary = likelihood.binarized(
            evaluation.test.center(self.image_shape).images,
            example_generator(seed, EVALUATION, 1),
        )
        noise = evaluation.examples.noise
        on_binary = self.score(model, Examples(binary, binary, noise))["elbo"]

        def weighted(images: Images) -> dict[str, Any]:
            few = images[:IMAGES]
            bounds = likelihood.importance_weighted_bound(model, few, SAMPLES, seed)
            return asdict(likelihood.mean_bound(bounds, SAMPLES))

        found: dict[str, Any] = {
            "importance_weighted_bound": weighted(images),
            "binarized": {
                "elbo": float(on_binary.mean()),
                "importance_weighted_bound": weighted(binary),
            },
            "active_units": likelihood.active_units(model.encode(images)[0]),
            "latent_dim": model.code_size,
        }
        if self.image_shape == sample_quality.SHAPE:
            found["samples"] = self._sample_quality(evaluation)
        return found

    def _sample_quality(self, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        """Return the measures of samples by the name of the model that they come from."""
        real = evaluation.test.center(self.image_shape).images
        train = evaluation.data.train.center(self.image_shape).images[: len(real)]
        reference = sample_quality.classify(real)
        models: dict[str, Any] = {"this run": evaluation.model, **evaluation.baselines}
        made = {
            name: likelihood.samples(m, len(real), self.config.seed) for name, m in models.items()
        }
        measured = {}
        for name, images in {**made, "training_images": train}.items():
            found = sample_quality.classify(images)
            pair = reference.values, found.values
            precision, recall = sample_quality.precision_and_recall(*pair)
            measured[name] = {
                "frechet_distance": sample_quality.frechet_distance(*pair),
                "precision": precision,
                "recall": recall,
                "digits": np.bincount(found.classes[:COUNTED], minlength=10).tolist(),
            }
        return measured

    def format_extra_metrics(self, result: Mapping[str, Any]) -> list[str]:
        """Return lines about the bounds, the code, and the samples."""
        bound, binary = result["importance_weighted_bound"], result["binarized"]
        weighted = binary["importance_weighted_bound"]
        lines = [
            f"log-likelihood: at least {bound['nats']:.2f} nats (standard error "
            f"{bound['error']:.2f}), importance-weighted bound of {bound['samples']} samples on "
            f"{bound['images']:,} images",
            f"binarized digits (drawn with the gray values as probabilities): ELBO "
            f"{binary['elbo']:.2f}, importance-weighted bound {weighted['nats']:.2f} nats",
            f"active units: {result['active_units']} of {result['latent_dim']}",
        ]
        for name, table in result.get("samples", {}).items():
            lines.append(
                f"samples of {name.replace('_', ' ')}: Fréchet distance "
                f"{table['frechet_distance']:.2f}, precision {table['precision']:.3f}, recall "
                f"{table['recall']:.3f}, {np.count_nonzero(table['digits'])} of 10 digits"
            )
        return lines
