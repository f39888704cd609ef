#include "model/tensor_hasher.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

// Guards a line of the digest file against a torn write or a bad disk.
std::string LineCheck(absl::string_view line) {
  return absl::StrFormat("%016x", XXH3_64bits(line.data(), line.size()));
}

std::string LineOf(absl::string_view name, const std::vector<Sha256Digest>& chunks) {
  std::string line = absl::BytesToHexString(name);
  for (const Sha256Digest& chunk : chunks) absl::StrAppend(&line, " ", ToHex(chunk));
  return absl::StrCat(line, " ", LineCheck(line), "\n");
}

// "<size> <mtime> <hash of the header>" of each of the model's files, as a short file name.
absl::StatusOr<std::string> DigestFileName(const ModelFile& file) {
  std::string key;
  for (const ModelPart& part : file.parts()) {
    struct stat info;
    if (stat(part.path.c_str(), &info) != 0) return ErrnoStatus(errno, "look at", part.path);
    absl::StrAppend(&key, info.st_size, " ", info.st_mtim.tv_sec, " ", info.st_mtim.tv_nsec, " ",
                    ToHex(Sha256(part.header)), "\n");
  }
  const Sha256Digest digest = Sha256({reinterpret_cast<const uint8_t*>(key.data()), key.size()});
  return absl::StrCat("tensor-digests-", ToHex(digest).substr(0, 16));
}

// More than any digest file of this model has.
size_t DigestFileBound(const ModelFile& file) {
  uint64_t header_bytes = 0;
  for (const ModelPart& part : file.parts()) header_bytes += part.header.size();
  return file.file_bytes() / kChunkBytes * 65 + header_bytes * 2 + file.tensors().size() * 256 +
         4096;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorHasher>> TensorHasher::Create(const ModelFile& file,
                                                                   const std::string& state_dir) {
  if (state_dir.empty()) return std::unique_ptr<TensorHasher>(new TensorHasher(file, ""));
  RETURN_IF_ERROR(MakeDirectories(state_dir, 0700));
  ASSIGN_OR_RETURN(const std::string name, DigestFileName(file));
  const std::string digest_file = absl::StrCat(state_dir, "/", name);
  std::unique_ptr<TensorHasher> hasher(new TensorHasher(file, digest_file));
  absl::StatusOr<std::string> text = ReadFile(digest_file, DigestFileBound(file));
  if (text.ok()) {
    hasher->Load(*text);
  } else if (absl::IsResourceExhausted(text.status())) {
    spdlog::warn("{}; it is made anew", std::string(text.status().message()));
    if (unlink(digest_file.c_str()) != 0) return ErrnoStatus(errno, "remove", digest_file);
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  return hasher;
}

void TensorHasher::Load(const std::string& text) {
  absl::MutexLock lock(&mu_);
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const size_t last = line.rfind(' ');
    if (last == absl::string_view::npos || line.substr(last + 1) != LineCheck(line.substr(0, last)))
      continue;  // torn or damaged: it is computed again
    const std::vector<absl::string_view> words = absl::StrSplit(line.substr(0, last), ' ');
    auto entry = std::make_shared<Entry>();
    absl::MutexLock entry_lock(&entry->mu);
    for (size_t i = 1; i < words.size(); ++i) {
      const std::string bytes = absl::HexStringToBytes(words[i]);
      Sha256Digest digest{};
      if (bytes.size() != digest.size()) continue;
      std::copy(bytes.begin(), bytes.end(), digest.begin());
      entry->chunks.push_back(digest);
    }
    entry->done = true;
    entries_[absl::HexStringToBytes(words[0])] = entry;
  }
}

void TensorHasher::Append(const std::string& name, const std::vector<Sha256Digest>& chunks) {
  absl::MutexLock lock(&append_mu_);
  const std::string line = LineOf(name, chunks);
  const int fd = open(digest_file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const bool written =
      fd >= 0 && write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  if (!written) {
    // The digests are right all the same; a restart computes them again.
    spdlog::warn("can't keep tensor digests in {}: {}", digest_file_, std::strerror(errno));
  }
  if (fd >= 0) close(fd);
}

std::vector<Sha256Digest> TensorHasher::Compute(const ModelTensor& tensor) const {
  std::vector<Sha256Digest> chunks;
  std::vector<uint8_t> scratch;
  const uint64_t size = tensor.size_bytes();
  for (uint64_t offset = 0; offset < size; offset += kChunkBytes) {
    const absl::Span<const uint8_t> chunk =
        tensor.Bytes(offset, std::min(kChunkBytes, size - offset), scratch);
    chunks.push_back(Sha256(chunk));
    file_.DropPages(chunk);
  }
  file_.DropPages(tensor);
  return chunks;
}

absl::StatusOr<TensorSpec> TensorHasher::Hash(TensorSpec spec) {
  const ModelTensor* tensor = file_.FindTensor(spec.name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the model has no tensor ", Printable(spec.name)));
  }
  if (tensor->size_bytes() != spec.bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(spec.name), " has ",
                                                   tensor->size_bytes(), " bytes in the file, not ",
                                                   spec.bytes()));
  }
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mu_);
    std::shared_ptr<Entry>& slot = entries_[spec.name];
    if (slot == nullptr) slot = std::make_shared<Entry>();
    entry = slot;
  }
  absl::MutexLock lock(&entry->mu);
  if (!entry->done || entry->chunks.size() != spec.chunk_count()) {
    entry->chunks = Compute(*tensor);
    entry->done = true;
    if (!digest_file_.empty()) Append(spec.name, entry->chunks);
  }
  spec.chunks = entry->chunks;
  return spec;
}

std::optional<TensorSpec> TensorHasher::Known(TensorSpec spec) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mu_);
    const auto found = entries_.find(spec.name);
    if (found == entries_.end()) return std::nullopt;
    entry = found->second;
  }
  absl::MutexLock lock(&entry->mu);
  if (!entry->done || entry->chunks.size() != spec.chunk_count()) return std::nullopt;
  spec.chunks = entry->chunks;
  return spec;
}

absl::StatusOr<std::vector<TensorSpec>> TensorHasher::Hash(std::vector<TensorSpec> specs) {
  for (TensorSpec& spec : specs) {
    ASSIGN_OR_RETURN(spec, Hash(std::move(spec)));
  }
  return specs;
}

}  // namespace efedllm
