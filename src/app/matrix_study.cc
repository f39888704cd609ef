#include "app/matrix_study.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "model/tensor_loader.h"
#include "model/weights.h"
#include "svd/gram.h"

namespace efedllm {
namespace {

// Parts of a layer that are multiplied with the same inputs. The first that there is stands for
// all.
const std::vector<std::vector<const char*>>& InputGroups() {
  static const auto* groups =
      new std::vector<std::vector<const char*>>{{"attn_qkv", "attn_q", "attn_k", "attn_v"},
                                                {"attn_output"},
                                                {"ffn_gate", "ffn_up"},
                                                {"ffn_down"}};
  return *groups;
}

std::string PartName(uint32_t layer, const char* part) {
  return absl::StrCat("blk.", layer, ".", part);
}

const StageTensor* FindTensor(const std::vector<StageTensor>& tensors, const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const StageTensor& tensor) {
    return tensor.spec.name == name;
  });
  return found == tensors.end() ? nullptr : &*found;
}

}  // namespace

absl::StatusOr<std::vector<MatrixPlace>> CompressibleMatrices(const ModelConfig& config,
                                                              const ModelFile& file) {
  std::vector<MatrixPlace> places;
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    ASSIGN_OR_RETURN(const std::vector<TensorSpec> specs,
                     StageTensors(config, file, {layer, layer + 1}));
    for (const TensorSpec& spec : specs) {
      for (const std::vector<const char*>& group : InputGroups()) {
        for (const char* part : group) {
          const std::string name = PartName(layer, part);
          if (spec.name == name + ".weight") places.push_back({layer, name, spec});
        }
      }
    }
  }
  return places;
}

StudiedMatrix LayerVisit::Study(const MatrixPlace& place) const {
  CHECK(place.layer == layer_);
  const auto found = std::find_if(moments_.begin(), moments_.end(), [&](const Moments& moments) {
    return std::count(moments.parts.begin(), moments.parts.end(), place.part) > 0;
  });
  CHECK(found != moments_.end());
  return {place.part, place.spec.dtype, ReadMatrix(file_, place.spec, team_), found->gram};
}

absl::StatusOr<std::vector<StageTensor>> LayerVisit::Replace(std::vector<StageTensor> tensors,
                                                             const MatrixPlace& place,
                                                             const std::vector<FormTensor>& form) {
  std::erase_if(tensors,
                [&](const StageTensor& tensor) { return tensor.spec.name == place.spec.name; });
  for (const FormTensor& tensor : form) {
    ASSIGN_OR_RETURN(std::shared_ptr<const PackedTensor> packed,
                     PackedTensor::FromGguf(tensor.spec, tensor.bytes));
    tensors.push_back({tensor.spec, std::move(packed)});
  }
  return tensors;
}

absl::Status LayerWalk::Observe(LayerVisit& layer, Matrix& hidden) {
  struct Group {
    const uint8_t* weights;  // of the matrix that stands for all
    GramAccumulator gram;
    std::vector<std::string> parts;
  };
  std::vector<Group> groups;
  for (const std::vector<const char*>& parts : InputGroups()) {
    std::vector<std::string> names;
    const StageTensor* first = nullptr;
    for (const char* part : parts) {
      const StageTensor* tensor =
          FindTensor(layer.tensors_, PartName(layer.layer_, part) + ".weight");
      if (tensor == nullptr) continue;
      if (first == nullptr) first = tensor;
      names.push_back(PartName(layer.layer_, part));
    }
    if (first == nullptr) continue;
    groups.push_back({first->data->data().data(), GramAccumulator(first->spec.cols, *compute_.team),
                      std::move(names)});
  }
  compute_.observe = [&groups](ConstMatrixRef x, const PackedMatrix& w) {
    for (Group& group : groups) {
      if (group.weights == w.data) group.gram.Add(x);
    }
  };
  const absl::Cleanup stop = [this] { compute_.observe = nullptr; };
  RETURN_IF_ERROR(model_.RunLayer(layer.layer_, layer.tensors_, text_, {hidden.ref()}));
  layer.moments_.clear();
  for (Group& group : groups) {
    layer.moments_.push_back({std::move(group.parts), group.gram.Mean()});
  }
  return absl::OkStatus();
}

absl::Status LayerWalk::Run(const Visitor& visit) {
  ASSIGN_OR_RETURN(Matrix hidden, model_.Embed(text_));
  LayerVisit layer(file_, *compute_.team);
  for (uint32_t i = 0; i < model_.config().layers; ++i) {
    layer.layer_ = i;
    ASSIGN_OR_RETURN(layer.tensors_, LoadStageTensors(model_.config(), file_, {i, i + 1},
                                                      {.team = compute_.team.get()}));
    RETURN_IF_ERROR(Observe(layer, hidden));
    RETURN_IF_ERROR(visit(layer));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
