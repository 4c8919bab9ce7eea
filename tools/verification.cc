// SPDX-License-Identifier: Apache-2.0
#include "tools/verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "tools/feed.h"

namespace crease::tools {
namespace {

Result<TensorMap> GivenInputs(const Graph& graph, const NamedTensors& given) {
  TensorMap inputs;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (value.constant) continue;
    const auto found =
        std::find_if(given.rbegin(), given.rend(), [&](const auto& pair) { return pair.first == value.name; });
    if (found == given.rend()) {
      return Error{ErrorCode::kInvalidArgument, "--input has no array of that name",
                   "input '" + Printable(value.name) + "'"};
    }
    inputs[value.name] = found->second;
  }
  return inputs;
}

Error WithAdvice(Error error) {
  error.message += " (on random inputs; --input takes others)";
  return error;
}

NamedTensors Listed(const TensorMap& inputs) { return NamedTensors(inputs.begin(), inputs.end()); }

Result<Verification> InFloat(const Session& a, const Session& b, const TensorMap& inputs, const VerifyLimits& limits) {
  Verification result;
  result.precision = "float32";
  result.tolerance = limits.tolerance;
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> a_inputs, MatchInputs(a, Listed(inputs)));
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> b_inputs, MatchInputs(b, Listed(inputs)));
  CREASE_ASSIGN_OR_RETURN(const NamedTensors want, RunOnce(a, a_inputs));
  CREASE_ASSIGN_OR_RETURN(const NamedTensors got, RunOnce(b, b_inputs));
  if (want.size() != got.size())
    return Error{ErrorCode::kInvalidArgument, "the models have different numbers of outputs", ""};
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = DifferenceInDeviations(want[i].second, got[i].second, limits.least_unit);
    result.outputs.push_back({want[i].first, "", error, CountNotFinite(want[i].second)});
  }
  return result;
}

Result<Session> LoadPlain(const std::string& path) {
  Options options;
  options.fold = false;
  return Session::load(path, options);
}

}  // namespace

std::string CheckTolerance(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool good = error == std::errc() && end == text.data() + text.size() && value >= 0 && std::isfinite(value);
  return good ? "" : "expected a finite number >= 0, got " + text;
}

double Verification::worst() const {
  double error = 0;
  for (const ValueDifference& output : outputs) error = std::max(error, output.error);
  return error;
}

Result<std::vector<Verification>> Verify(const Graph& a, const Graph& b, const std::string& a_path,
                                         const std::string& b_path, const VerifyRequest& request) {
  std::vector<std::pair<std::string, TensorMap>> sets;
  if (!request.given.empty()) {
    CREASE_ASSIGN_OR_RETURN(TensorMap inputs, GivenInputs(a, request.given));
    sets.emplace_back("--input", std::move(inputs));
  }
  for (int i = 0; request.given.empty() && i < request.samples; ++i) {
    CREASE_ASSIGN_OR_RETURN(TensorMap inputs, RandomInputs(a, {.seed = static_cast<uint64_t>(i) + 1, .other = &b}));
    sets.emplace_back(fmt::format("seed {}", i + 1), std::move(inputs));
  }
  VerifyLimits limits = LimitsOf(a, b);
  limits.tolerance = request.tolerance.value_or(limits.tolerance);
  std::vector<Verification> results;
  Progress progress("verifying", static_cast<int64_t>(sets.size()) * 2);
  int64_t done = 0;
  std::vector<Session> sessions;
  if (request.in_float) {
    CREASE_ASSIGN_OR_RETURN(Session a_session, LoadPlain(a_path));
    CREASE_ASSIGN_OR_RETURN(Session b_session, LoadPlain(b_path));
    sessions = {std::move(a_session), std::move(b_session)};
  }
  for (const auto& [name, inputs] : sets) {
    progress.Update(done++, name + " in float64");
    Result<Comparison> compared = CompareInDouble(a, b, inputs, limits);
    if (!compared.ok() && request.given.empty()) return WithAdvice(std::move(compared).error());
    CREASE_ASSIGN_OR_RETURN(Comparison comparison, std::move(compared));
    results.push_back({name, "float64", limits.tolerance, std::move(comparison.outputs), std::move(comparison.layers),
                       std::move(comparison.first)});
    if (request.in_float) {
      progress.Update(done++, name + " in float32");
      CREASE_ASSIGN_OR_RETURN(Verification in_float, InFloat(sessions[0], sessions[1], inputs, limits));
      in_float.inputs = name;
      results.push_back(std::move(in_float));
    }
  }
  return results;
}

std::string NotFiniteText(int64_t count) {
  return count == 0 ? "" : fmt::format("; {} {} NaN or infinite", count, count == 1 ? "value is" : "values are");
}

std::string VerificationText(const std::vector<Verification>& verifications) {
  std::string text;
  for (const Verification& v : verifications) {
    for (const ValueDifference& output : v.outputs) {
      text += fmt::format("  {:4s} {} {}: output '{}' differs by {:.1e} of its standard deviation (at most {:.1e}){}\n",
                          output.error <= v.tolerance ? "ok" : "FAIL", v.precision, v.inputs, Printable(output.name),
                          output.error, v.tolerance, NotFiniteText(output.not_finite));
    }
    if (!v.first.name.empty()) {
      text += fmt::format("       first at '{}', {}: {:.1e}\n", Printable(v.first.name), v.first.node, v.first.error);
    }
  }
  return text;
}

Json VerificationJson(const std::vector<Verification>& verifications) {
  Json list = Json::array();
  for (const Verification& v : verifications) {
    Json outputs = Json::array();
    for (const ValueDifference& output : v.outputs)
      outputs.push_back(
          {{"name", Printable(output.name)}, {"max_error_std", output.error}, {"not_finite", output.not_finite}});
    Json entry = {{"inputs", v.inputs},
                  {"precision", v.precision},
                  {"ok", v.ok()},
                  {"tolerance_std", v.tolerance},
                  {"outputs", outputs}};
    if (!v.first.name.empty()) {
      entry["first_difference"] = {
          {"value", Printable(v.first.name)}, {"node", v.first.node}, {"max_error_std", v.first.error}};
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace crease::tools
