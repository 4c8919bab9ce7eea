// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/reason_codes.h"

#include <algorithm>

namespace crease {
namespace {

constexpr ReasonCode kCodes[] = {
    {"folded-forward", true, "the map went into the weights of every operator that reads the value", ""},
    {"folded-into-affine", true, "composed with another per-channel map", ""},
    {"folded-into-constant", true, "the value was a constant, which now has the map in it", ""},
    {"folded-into-conv", true, "scaled the weights of the convolution and moved the shift into its bias", ""},
    {"folded-into-conv-transpose", true, "likewise for a transposed convolution", ""},
    {"folded-into-gemm", true, "scaled the columns of a Gemm and moved the shift into its C", ""},
    {"folded-into-matmul", true, "scaled the constant of a MatMul; a shift became a Gemm's C or an Add behind it", ""},
    {"folded-into-several", true, "split over a Concat, an Add or a Split and absorbed in every branch", ""},
    {"folded-partly", true, "split over a Concat; the branches that cannot absorb keep a node of their own", ""},
    {"merged", true, "composed with the neighbouring per-channel maps into one node", ""},
    {"rewritten", true, "replaced by a simpler node of the same meaning", ""},
    {"removed", true, "a node without effect, or whose result nothing uses, was taken out", ""},
    {"evaluated", true, "a node of constants only was replaced by its value", ""},

    {"axis-mismatch", false, "the channels of the map are not those of the operator's weights",
     "normalise along the axis that the weights make, or along the one that they sum over"},
    {"bad-variance", false, "var + epsilon is not positive and finite in some channel",
     "repair the statistics of the named channel; the network gives NaN there, or, with an infinite variance, the "
     "bias"},
    {"bias-not-constant", false, "the bias is computed at run time", "make the bias an initializer"},
    {"captured-by-subgraph", false, "a subgraph (If, Loop, Scan) reads the value by its name",
     "compute the subgraph's condition before export, so that the branch is inlined"},
    {"cast-rounds", false, "a Cast between float types would round another value, or a result not rounded before",
     "none exact; put map and weights on the same side of the Cast"},
    {"cost", false, "folding is exact here, but would leave as many passes over memory as it removes",
     "nothing to gain"},
    {"denormal-weight", false, "a whole channel of weights would become denormal or zero",
     "prune the channel, or set its scale to zero"},
    {"extra-outputs", false, "the outputs mean, var, saved_mean or saved_var ask for batch statistics (opset < 14)",
     "export in eval mode"},
    {"graph-input", false, "nothing with weights makes the value: it is a graph input",
     "put the map into the preparation of the input"},
    {"graph-output", false, "a value between the map and the weights is a graph output", "drop the extra output"},
    {"in-subgraph", false, "it lies in a body of If, Loop or Scan, or in a local function, which Crease keeps as it is",
     "compute the condition before export, so that the branch is inlined; inline the functions"},
    {"indices-used", false, "the MaxPool's indices are used and the scale is zero", "drop the second output"},
    {"negative-scale", false, "a scale below zero does not commute with a maximum or a rectifier",
     "make the scale positive by flipping the sign of the weights before, if there are any"},
    {"no-consumer", false, "no operator with weights reads the value", "nothing to gain"},
    {"no-definition", false, "an operator on the way is not known to Crease", "open an issue with the operator's name"},
    {"nonlinear", false, "the operator on the way is not linear", "none: the function is another one"},
    {"not-finite", false, "a parameter, a weight or the composed map is infinite or NaN", "repair the weights"},
    {"not-per-channel", false, "the parameters are not one number a channel (spatial = 0, or a wrong shape)",
     "export with one statistic a channel"},
    {"other-consumers", false, "another operator reads the same value without the map",
     "none that pays: it would compute the value twice"},
    {"out-of-memory", false, "there was no memory for the new weights", "free some memory"},
    {"pad-value", false, "the map changes the value that Pad fills in", "pad after the map by a value of its own"},
    {"parameter-length", false, "the parameters' length is not the number of channels", "repair the model"},
    {"parameters-not-constant", false, "the parameters are computed at run time", "make them initializers"},
    {"pool-counts-padding", false, "the pool averages padding in, which the shift would not reach",
     "export with count_include_pad = 0, or pool before normalising"},
    {"quantized-weights", false, "the weights come from DequantizeLinear", "fold before quantizing"},
    {"resize-extrapolates", false, "the Resize reads values from outside of the image (tf_crop_and_resize)",
     "export with another coordinate_transformation_mode"},
    {"shape-unknown", false, "the rank or the number of channels is not known",
     "run shape inference, or fix the shape"},
    {"shift-behind-activation", false, "the shift does not commute with the rectifier between weights and map",
     "none exact; a following convolution without padding absorbs it"},
    {"too-deep", false, "more than 200 operators lie between the map and the weights", "report the network"},
    {"training-mode", false, "training_mode = 1: it normalises by the statistics of the batch",
     "export in eval mode, or `crease lint --fix`"},
    {"uneven-channels", false, "channels that share one weight have different maps", "none exact"},
    {"unsupported-producer", false, "no rule for the operator that makes the value", "open an issue with the pattern"},
    {"weight-overflow", false, "a folded weight would overflow its type", "rescale the layer"},
    {"weights-not-constant", false, "the weights are computed at run time", "make them initializers"},
    {"zero-padding", false, "the convolution pads with zeros, which the shift does not reach",
     "none exact in an ONNX file; at run time the convolution applies the map as it reads and pads with zeros behind "
     "it"},
};

}  // namespace

std::span<const ReasonCode> ReasonCodes() { return kCodes; }

const ReasonCode* FindReasonCode(std::string_view code) {
  const auto* found =
      std::find_if(std::begin(kCodes), std::end(kCodes), [&](const ReasonCode& row) { return row.code == code; });
  return found == std::end(kCodes) ? nullptr : found;
}

std::string ReasonCodesMarkdown() {
  std::string text = "| code | fate | meaning | what would make it foldable |\n|---|---|---|---|\n";
  for (const ReasonCode& row : kCodes) {
    text += "| `" + std::string(row.code) + "` | " + (row.applied ? "folded" : "kept") + " | " +
            std::string(row.meaning) + " | " + std::string(row.remedy) + " |\n";
  }
  return text;
}

}  // namespace crease
