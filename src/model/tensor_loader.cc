#include "model/tensor_loader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "layers/packed_matrix.h"
#include "model/weight_memory.h"
#include "model/weights.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

constexpr uint64_t kPieceBytes = 1u << 20;

// Rows of a tensor that a thread packs at a time: whole groups, or a vector.
struct Piece {
  size_t tensor = 0;
  uint64_t first_row = 0;
  uint64_t rows = 0;
  uint64_t offset = 0;  // of the packed rows in the memory
};

void AddPieces(size_t tensor, const TensorSpec& spec, uint64_t offset, std::vector<Piece>& pieces) {
  if (spec.rows == 1) {
    pieces.push_back({tensor, 0, 1, offset});
    return;
  }
  const uint64_t group_bytes = PackedGroupBytes(spec.dtype, spec.cols);
  const uint64_t groups = std::max<uint64_t>(1, kPieceBytes / group_bytes);
  for (uint64_t row = 0; row < spec.rows; row += groups * kGroupRows) {
    const uint64_t rows = std::min(groups * kGroupRows, spec.rows - row);
    pieces.push_back({tensor, row, rows, offset + row / kGroupRows * group_bytes});
  }
}

void PackPiece(const ModelFile& file, const TensorSpec& spec, const Piece& piece, uint8_t* packed) {
  std::vector<uint8_t> scratch;
  const uint64_t row_bytes = spec.bytes() / spec.rows;
  const absl::Span<const uint8_t> gguf = file.FindTensor(spec.name)->Bytes(
      piece.first_row * row_bytes, piece.rows * row_bytes, scratch);
  if (spec.rows == 1) {
    std::memcpy(packed, gguf.data(), gguf.size());
  } else {
    PackMatrix(spec.dtype, piece.rows, spec.cols, gguf.data(), packed);
  }
  file.DropPages(gguf);
}

uint64_t Aligned(uint64_t bytes) {
  return (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
}

// Fills in the data of tensors that have none yet.
absl::Status PackMissing(const ModelFile& file, ThreadTeam& team,
                         std::vector<StageTensor>& tensors) {
  std::vector<Piece> pieces;
  std::vector<uint64_t> offsets(tensors.size());
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].data != nullptr) continue;
    offsets[i] = bytes;
    AddPieces(i, tensors[i].spec, bytes, pieces);
    bytes += Aligned(PackedBytes(tensors[i].spec));
  }
  if (pieces.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::shared_ptr<WeightMemory> memory, WeightMemory::Allocate(bytes));
  team.ParallelFor(pieces.size(), [&](size_t i) {
    const Piece& piece = pieces[i];
    PackPiece(file, tensors[piece.tensor].spec, piece, memory->data() + piece.offset);
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].data != nullptr) continue;
    file.DropPages(*file.FindTensor(tensors[i].spec.name));  // what lay between the pieces
    tensors[i].data = std::make_shared<const PackedTensor>(tensors[i].spec, memory, offsets[i]);
  }
  return absl::OkStatus();
}

// Maps what the cache has. What fails is packed anew, so it is only worth a warning.
void MapCached(WeightCache& cache, TensorHasher& hasher, ThreadTeam& team,
               std::vector<StageTensor>& tensors) {
  team.ParallelFor(tensors.size(), [&](size_t i) {
    std::optional<TensorSpec> spec = hasher.Known(tensors[i].spec);
    if (!spec.has_value()) return;
    auto cached = cache.Get(*spec);
    if (cached.ok()) {
      tensors[i] = {*std::move(spec), *std::move(cached)};
    } else if (!absl::IsNotFound(cached.status())) {
      spdlog::warn("weight cache: {}", std::string(cached.status().message()));
    }
  });
}

}  // namespace

absl::StatusOr<std::vector<StageTensor>> LoadTensors(const ModelFile& file,
                                                     std::vector<TensorSpec> specs,
                                                     const TensorSources& sources) {
  std::vector<StageTensor> tensors;
  tensors.reserve(specs.size());
  for (TensorSpec& spec : specs) tensors.push_back({std::move(spec), nullptr});
  ThreadTeam alone(0);
  ThreadTeam& team = sources.team != nullptr ? *sources.team : alone;
  if (sources.cache != nullptr) MapCached(*sources.cache, *sources.hasher, team, tensors);
  RETURN_IF_ERROR(PackMissing(file, team, tensors));
  return tensors;
}

absl::StatusOr<std::vector<StageTensor>> LoadStageTensors(const ModelConfig& config,
                                                          const ModelFile& file, LayerRange layers,
                                                          const TensorSources& sources) {
  ASSIGN_OR_RETURN(std::vector<TensorSpec> specs, StageTensors(config, file, layers));
  return LoadTensors(file, std::move(specs), sources);
}

absl::Status KeepTensors(const std::vector<StageTensor>& tensors, WeightCache& cache,
                         TensorHasher& hasher, const std::function<bool()>& stop) {
  std::vector<TensorSpec> specs;
  for (const StageTensor& tensor : tensors) {
    if (stop()) return absl::OkStatus();
    ASSIGN_OR_RETURN(TensorSpec spec, hasher.Hash(tensor.spec));
    specs.push_back(std::move(spec));
  }
  uint64_t missing = 0;
  for (const TensorSpec& spec : specs) {
    if (!cache.Has(spec)) missing += PackedBytes(spec);
  }
  if (missing == 0) return absl::OkStatus();
  RETURN_IF_ERROR(cache.KeepOnly(specs));
  ASSIGN_OR_RETURN(const uint64_t free, cache.FreeBytes());
  if (missing > free / 2) {
    return absl::ResourceExhaustedError(absl::StrCat("they take ", FormatBytes(missing),
                                                     ", and only ", FormatBytes(free),
                                                     " are free on the disk of the state folder"));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (stop()) return absl::OkStatus();
    if (!cache.Has(specs[i])) RETURN_IF_ERROR(cache.PutPacked(specs[i], tensors[i].data->data()));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
