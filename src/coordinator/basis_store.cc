#include "coordinator/basis_store.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

constexpr char kMagic[8] = {'e', 'F', 'e', 'd', 'L', 'L', 'M', 'b'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 112, kDigestAt = 80;
constexpr uint64_t kSampleBytes = 4096;  // of a tensor's beginning, middle and end

absl::Span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

void AppendNumber(std::string& out, uint64_t number, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(number >> (8 * i)));
}

void AppendBytes(std::string& out, absl::Span<const uint8_t> bytes) {
  out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// All up to the payload's digest.
std::string HeaderOf(const BasisKey& key) {
  std::string header(kMagic, sizeof kMagic);
  AppendNumber(header, kVersion, 4);
  AppendNumber(header, key.boundary, 4);
  AppendBytes(header, key.model);
  AppendBytes(header, key.calibration);
  return header;
}

absl::StatusOr<BoundaryBasis> Read(const std::string& path, const BasisKey& key, uint32_t d_model) {
  ASSIGN_OR_RETURN(const std::string file, ReadFile(path, kHeaderBytes + MaxBasisBytes(d_model)));
  if (file.size() < kHeaderBytes || file.compare(0, kDigestAt, HeaderOf(key)) != 0) {
    return absl::DataLossError("it is not the basis that its name says");
  }
  const absl::Span<const uint8_t> payload = BytesOf(file).subspan(kHeaderBytes);
  const Sha256Digest digest = Sha256(payload);
  if (std::memcmp(digest.data(), file.data() + kDigestAt, digest.size()) != 0) {
    return absl::DataLossError("its checksum is wrong");
  }
  ASSIGN_OR_RETURN(BoundaryBasis basis, ParseBoundaryBasis(payload));
  if (basis.boundary != key.boundary || basis.d_model != d_model) {
    return absl::DataLossError("it is of another boundary");
  }
  return basis;
}

}  // namespace

Sha256Digest ModelDigest(const ModelFile& file) {
  std::string facts;
  for (const ModelPart& part : file.parts()) {
    AppendNumber(facts, part.bytes.size(), 8);
    const Sha256Digest header = Sha256(part.header);
    AppendBytes(facts, header);
  }
  std::vector<uint8_t> scratch;
  for (const ModelTensor& tensor : file.tensors()) {
    const uint64_t size = tensor.size_bytes(), length = std::min(size, kSampleBytes);
    for (const uint64_t at : {uint64_t{0}, (size - length) / 2, size - length}) {
      AppendBytes(facts, tensor.Bytes(at, length, scratch));
    }
  }
  return Sha256(BytesOf(facts));
}

std::string BasisStore::Path(const BasisKey& key) const {
  return absl::StrCat(folder_, "/", ToHex(key.model).substr(0, 16), "-",
                      ToHex(key.calibration).substr(0, 16), "-", key.boundary, ".basis");
}

std::shared_ptr<const BoundaryBasis> BasisStore::Get(const BasisKey& key, uint32_t d_model) const {
  const std::string path = Path(key);
  absl::StatusOr<BoundaryBasis> basis = Read(path, key, d_model);
  if (basis.ok()) return std::make_shared<const BoundaryBasis>(*std::move(basis));
  if (!absl::IsNotFound(basis.status())) {
    spdlog::warn("{}: {}; it will be made anew", path, std::string(basis.status().message()));
  }
  return nullptr;
}

absl::Status BasisStore::Put(const BasisKey& key, const BoundaryBasis& basis) const {
  RETURN_IF_ERROR(MakeDirectories(folder_, 0700));
  const std::string payload = basis.Serialize();
  std::string file = HeaderOf(key);
  const Sha256Digest digest = Sha256(BytesOf(payload));
  AppendBytes(file, digest);
  file += payload;
  return WriteFileAtomically(Path(key), file, 0600);
}

absl::Status BasisStore::Forget(const Sha256Digest& model, const Sha256Digest& calibration) const {
  const std::string prefix =
      absl::StrCat(ToHex(model).substr(0, 16), "-", ToHex(calibration).substr(0, 16), "-");
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!absl::StartsWith(entry->path().filename().string(), prefix)) continue;
    if (unlink(entry->path().c_str()) != 0) {
      return ErrnoStatus(errno, "cannot remove", entry->path().string());
    }
  }
  return absl::OkStatus();
}

std::string BasisStore::ChosenPath(const Sha256Digest& model) const {
  return absl::StrCat(folder_, "/", ToHex(model).substr(0, 16), ".chosen");
}

std::optional<Sha256Digest> BasisStore::Chosen(const Sha256Digest& model) const {
  Sha256Digest digest{};
  const absl::StatusOr<std::string> text = ReadFile(ChosenPath(model), 2 * digest.size());
  if (!text.ok()) return std::nullopt;
  const std::string bytes = absl::HexStringToBytes(*text);
  if (bytes.size() != digest.size()) return std::nullopt;
  std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

absl::Status BasisStore::Choose(const Sha256Digest& model,
                                std::optional<Sha256Digest> calibration) const {
  RETURN_IF_ERROR(MakeDirectories(folder_, 0700));
  return WriteFileAtomically(ChosenPath(model), calibration ? ToHex(*calibration) : "", 0600);
}

std::string BasisFolder(const std::string& state_dir) { return state_dir + "/bases"; }

}  // namespace efedllm
