// Runs a fuzz target without libFuzzer: on each file of the folder given, and on seeded mutations
// of it. A failure is a crash; the line printed before it names the file and the seed that repeat
// it.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "common/file.h"
#include "common/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace efedllm {
namespace {

constexpr uint64_t kMutations = 4000;
constexpr size_t kMaxInputBytes = 64 << 20;
// Large inputs get fewer mutations, so that the whole run stays within seconds.
constexpr uint64_t kMaxMutatedBytes = uint64_t{4} << 30;

struct Input {
  std::string name;
  std::string bytes;
};

std::vector<Input> ReadCorpus(const std::string& folder) {
  std::vector<Input> corpus = {{"(empty)", ""}, {"(zeros)", std::string(64, '\0')}};
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    if (!entry.is_regular_file()) continue;
    absl::StatusOr<std::string> bytes = ReadFile(entry.path().string(), kMaxInputBytes);
    if (bytes.ok()) corpus.push_back({entry.path().string(), *std::move(bytes)});
  }
  std::sort(corpus.begin(), corpus.end(),
            [](const Input& a, const Input& b) { return a.name < b.name; });
  return corpus;
}

// One to eight edits: bits flipped, bytes set to a telling value, a piece doubled or removed, the
// end cut off.
std::string Mutate(std::string bytes, Random& random) {
  for (uint64_t edits = 1 + random.Below(8); edits > 0 && !bytes.empty(); edits--) {
    const size_t at = random.Below(bytes.size());
    const size_t length = 1 + random.Below(std::min<size_t>(bytes.size() - at, 16));
    switch (random.Below(6)) {
      case 0:
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
        break;
      case 2:
        bytes.replace(at, length, length, static_cast<char>(random.Below(2) ? 0xff : 0));
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, length));
        break;
      case 4:
        bytes.erase(at, length);
        break;
      default:
        bytes[at] = static_cast<char>(random.Next());
        if (random.Below(4) == 0) bytes.resize(at + 1);
    }
  }
  return bytes;
}

// A copy on the heap of just that size: AddressSanitizer then sees a read past the end.
void RunOnce(const std::string& bytes) {
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

int Replay(const std::string& folder) {
  const std::vector<Input> corpus = ReadCorpus(folder);
  uint64_t runs = 0;
  for (const Input& input : corpus) {
    std::printf("%s (%zu bytes)\n", input.name.c_str(), input.bytes.size());
    std::fflush(stdout);
    RunOnce(input.bytes);
    const uint64_t affordable = kMaxMutatedBytes / corpus.size() / (input.bytes.size() + 1);
    const uint64_t mutations = std::min(kMutations / corpus.size() + 1, affordable + 1);
    for (uint64_t seed = 0; seed < mutations; seed++, runs++) {
      Random random(seed);
      RunOnce(Mutate(input.bytes, random));
    }
  }
  std::printf("%zu inputs, %zu mutations, no crash\n", corpus.size(), static_cast<size_t>(runs));
  return 0;
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
    return 2;
  }
  return efedllm::Replay(argv[1]);
}
