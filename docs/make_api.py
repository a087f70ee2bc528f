"""Write docs/api.md from the public docstrings."""

import inspect
import re
from pathlib import Path

import widelimit as wl

SECTIONS = {
    "Kernels": ["kernel", "Kernel"],
    "Checking": ["verify"],
    "Finite networks": [
        "empirical_ntk", "empirical_nngp", "ntk_operator", "linearize", "taylor", "jacobian_norm",
        "closed_path", "spectrum", "tangent.Spectrum", "tangent.LearningCurve", "monte_carlo",
        "finite.MonteCarlo", "finite.Sampled",
    ],
    "Training dynamics": [
        "dynamics.linearized", "dynamics.Linearized", "dynamics.of_kernel", "dynamics.Training",
        "dynamics.squared", "dynamics.BestTime", "dynamics.largest_learning_rate",
        "dynamics.StableRate", "dynamics.largest_eigenvalue", "dynamics.Largest", "track",
        "dynamics.Tracker",
    ],
    "Priors and models": ["Prior", "prior_of", "describe"],
    "Prediction": [
        "predict.posterior", "predict.Posterior", "predict.StudentPosterior",
        "predict.InverseGamma", "predict.LeaveOneOut", "predict.gradient_flow",
        "predict.GradientFlow", "predict.learn", "predict.Fit", "predict.Bounds",
        "predict.laplace", "predict.Laplace", "predict.class_probabilities", "predict.fit_link",
    ],
    "Estimators": [
        "estimators.WideRegressor", "estimators.WideClassifier", "estimators.NetworkKernel",
    ],
    "Layers": [
        "nn.Linear", "nn.Conv", "nn.Attention", "nn.Embedding", "nn.Positions", "nn.AvgPool",
        "nn.Positionwise", "nn.global_average", "nn.flatten", "nn.Sequential", "nn.Residual",
    ],
    "Networks": [
        "nn.mlp", "nn.residual_mlp", "nn.normalised_mlp", "nn.zoo.lenet", "nn.zoo.myrtle",
        "nn.zoo.resnet", "nn.zoo.wide_resnet", "nn.zoo.convnext", "nn.zoo.vit",
        "nn.zoo.character_transformer", "nn.zoo.RNN", "nn.zoo.GCN",
    ],
    "Dual activations": ["duals.Activation", "duals.pair", "duals.certificate"],
    "Errors": [
        "WideLimitError", "UnsupportedPrimitiveError", "NotGaussianError", "TransposedWeightError",
        "OrderStatisticError", "RandomnessError", "BatchStatisticsError", "AmbiguousScaleError",
        "SharedAcrossWidthError", "MisalignedWidthError", "ControlFlowError", "UnknownPriorError",
        "NarrowWidthWarning",
    ],
}


def find(name):
    """The public object of a dotted name."""
    thing = wl
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def signature(name, thing):
    """The call as text; annotations are left to the docstring."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return f"wl.{name}"
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name != "self"]
    return re.sub(r" at 0x[0-9a-f]+", "", f"wl.{name}{inspect.Signature(bare)}")


def entry(name, thing, level="###"):
    """One object's section."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    lines = [f"{level} `{signature(name, thing)}`", "", "```text", doc, "```", ""]
    if inspect.isclass(thing) and not issubclass(thing, Warning | Exception):
        for key, method in vars(thing).items():
            public = not key.startswith(("_", "tree_")) and callable(method)
            if public and getattr(method, "__doc__", None):
                lines += entry(f"{name}.{key}", method, "####")
    return lines


def main():
    """Write the page."""
    lines = ["# API", "", "Generated from the docstrings by `python docs/make_api.py`.", ""]
    for title, names in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += entry(name, find(name))
    Path(__file__).with_name("api.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
