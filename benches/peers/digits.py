#!/usr/bin/env python3
"""What scikit-learn says of digits that a prior drew, and what simpler densities reach on the same held-out digits.

    benches/peers/digits.py SAMPLES.png        the sheet that `cargo run --example digits` writes

A classifier (an ensemble of support vector machines and a forest) is trained on the 1,437 training digits and judges the
360 held-out ones and the samples: how sure it is, how many of each class there are. "Recognised" is a sample of which
it is at least as sure as of all but 5 % of the held-out digits that it gets right. A Gaussian and mixtures of Gaussians are
fitted to dequantised training digits; their bits per dimension are those of the same 17 levels as in the page.
"""
import sys

import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.mixture import GaussianMixture
from sklearn.svm import SVC

DATA = __file__.rsplit("/", 3)[0] + "/tests/data/digits/"


def sheet(path, gap=0):
    image = np.array(Image.open(path).convert("L")).astype(float)
    step = 8 + gap
    rows, columns = image.shape[0] // step, image.shape[1] // step
    image = image[: rows * step, : columns * step].reshape(rows, step, columns, step).transpose(0, 2, 1, 3)
    return image[:, :, :8, :8].reshape(-1, 64)


def main():
    train, held = sheet(DATA + "train.png"), sheet(DATA + "held_out.png")
    labels = np.array([int(c) for c in open(DATA + "labels.txt").read().strip()])
    assert len(labels) == len(train) + len(held)
    y, truth = labels[: len(train)], labels[len(train) :]
    judge = VotingClassifier(
        [("svm", SVC(gamma=0.001 * (16 / 240) ** 2, C=10, probability=True, random_state=0)),
         ("forest", RandomForestClassifier(500, random_state=0))],
        voting="soft",
    ).fit(train, y)
    said = judge.predict_proba(held)
    right = said.argmax(1) == truth
    sure = said.max(1)
    limit = np.quantile(sure[right], 0.05)
    print(f"held-out digits: {100 * right.mean():.1f} % right, confidence: mean {sure.mean():.3f}, "
          f"median {np.median(sure):.3f}; 95 % of those that are right have at least {limit:.3f}")
    samples = sheet(sys.argv[1], gap=1)
    samples = samples[samples.std(1) > 0]
    said = judge.predict_proba(samples)
    sure = said.max(1)
    counts = np.bincount(said.argmax(1), minlength=10)
    print(f"{len(samples)} samples: {100 * (sure >= limit).mean():.1f} % recognised, confidence: mean {sure.mean():.3f}, "
          f"median {np.median(sure):.3f}; of each class {counts.tolist()} (training {np.bincount(y).tolist()})")

    noise = np.random.default_rng(0)
    def continuous(digits):
        return 2 * (digits + 15 * noise.random(digits.shape)) / 256 - 1
    width = 2 * 15 / 256
    def bits(log_density):
        return -log_density / (64 * np.log(2)) - np.log2(width)
    # Ten draws of the noise for the fit, five for the score.
    many = np.concatenate([continuous(train) for _ in range(10)])
    tests = [continuous(held) for _ in range(5)]
    def report(name, density):
        all_bits = np.mean([bits(density.score_samples(t)) for t in tests], axis=0)
        error = all_bits.std(ddof=1) / np.sqrt(len(all_bits))
        print(f"{name}: {all_bits.mean():.3f} ± {error:.3f} bits per dimension")
    report("Gaussian", GaussianMixture(1, covariance_type="full", reg_covar=1e-5).fit(many))
    # What is added to the variances decides how much a mixture overfits; all are shown, the best one counts.
    for kind, counts in (("full", (10, 30)), ("diag", (30, 100))):
        for count in counts:
            for added in (1e-4, 1e-3, 5e-3):
                fitted = GaussianMixture(count, covariance_type=kind, reg_covar=added, random_state=0, max_iter=50)
                report(f"mixture of {count} Gaussians, {kind} covariances + {added}", fitted.fit(many))


if __name__ == "__main__":
    main()
