// SPDX-License-Identifier: Apache-2.0
#include "crease/session.h"

#include <new>

#include "graph/onnx/file_bytes.h"
#include "graph/onnx/importer.h"
#include "runtime/session_impl.h"

namespace crease {
namespace {

ImportOptions ImportOptionsOf(const Options& options) {
  ImportOptions import;
  import.limits = options.limits;
  import.external_data_folder = options.external_data_folder;
  import.map_external_data = options.map_files;
  return import;
}

// The standard containers' only exception becomes an error; nothing is left half made.
template <typename F>
auto Guarded(const F& f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "an allocation failed", ""};
  }
}

}  // namespace

Result<Session> Session::load(const std::string& path, const Options& options) {
  return Guarded([&]() -> Result<Session> {
    const auto create = [&](Graph graph, std::shared_ptr<const FileMap> file) -> Result<Session> {
      Result<std::shared_ptr<const Impl>> impl = Impl::Create(std::move(graph), options, std::move(file));
      if (!impl.ok()) return onnx::InFile(path, std::move(impl).error());
      return Session(std::move(impl).value());
    };
    if (!options.map_files) {
      CREASE_ASSIGN_OR_RETURN(Graph graph, ImportOnnxFile(path, ImportOptionsOf(options)));
      return create(std::move(graph), nullptr);
    }
    CREASE_ASSIGN_OR_RETURN(MappedModel model, ImportMapped(path, ImportOptionsOf(options)));
    return create(std::move(model.graph), std::move(model.file));
  });
}

Result<Session> Session::load(std::span<const std::byte> bytes, const Options& options,
                              std::shared_ptr<const void> keep_alive) {
  return Guarded([&]() -> Result<Session> {
    CREASE_ASSIGN_OR_RETURN(Graph graph, ImportOnnx(bytes, std::move(keep_alive), ImportOptionsOf(options)));
    CREASE_ASSIGN_OR_RETURN(std::shared_ptr<const Impl> impl, Impl::Create(std::move(graph), options));
    return Session(std::move(impl));
  });
}

const std::vector<TensorSpec>& Session::inputs() const { return impl_->inputs(); }
const std::vector<TensorSpec>& Session::outputs() const { return impl_->outputs(); }

Result<std::vector<Shape>> Session::output_shapes(std::span<const Shape> input_shapes) const {
  return Guarded([&]() -> Result<std::vector<Shape>> {
    CREASE_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, impl_->PlanFor(input_shapes));
    return plan->output_shapes;
  });
}

Result<void> Session::run(std::span<const Input> inputs, std::span<const Output> outputs) const {
  return Guarded([&] { return impl_->Run(inputs, outputs); });
}

std::vector<NodeProfile> Session::profile() const { return impl_->Profile(); }

}  // namespace crease
