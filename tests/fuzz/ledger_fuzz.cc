// libs: efedllm_incentive
// A ledger file in which bytes were changed, through verification: it reads whatever is there, and
// never takes a changed file for a sound one.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/file.h"
#include "incentive/ledger.h"
#include "incentive/ledger_verify.h"

namespace efedllm {
namespace {

constexpr size_t kMaxBytes = 16 << 20;

std::string Path(const std::string& name) {
  return std::filesystem::temp_directory_path() / absl::StrCat("efedllm-fuzz-", getpid(), name);
}

// A sound one, closed.
std::string MakeLedger() {
  const std::string path = Path("-made.db");
  {
    auto ledger = Ledger::Open(path, absl::UnixEpoch());
    CHECK(ledger.ok());
    std::vector<Entry> entries;
    for (int i = 0; i < 20; ++i) {
      PendingWork work{.key = absl::StrCat("w", i), .node = NodeId{7}, .amount = 5};
      entries.push_back(PendingEntry(work, "{}"));
      if (i % 2 == 0) entries.push_back(PostEntry(work, 1));
    }
    CHECK((*ledger)->Append(entries).ok());
  }
  auto bytes = ReadFile(path, kMaxBytes);
  CHECK(bytes.ok());
  unlink(path.c_str());
  return *bytes;
}

}  // namespace
}  // namespace efedllm

// Edits: four bytes each, three for where and one for what; an edit of the last place cuts there.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string sound = efedllm::MakeLedger();
  static const std::string path = efedllm::Path("-changed.db");
  std::string file = sound;
  for (; size >= 4; data += 4, size -= 4) {
    const size_t at = (data[0] | data[1] << 8 | data[2] << 16) % file.size();
    file[at] = static_cast<char>(data[3]);
    if (at + 1 == file.size() && at > 0) file.resize(at);
  }
  std::ofstream(path, std::ios::binary | std::ios::trunc) << file;
  const auto verification = efedllm::VerifyLedger(path);
  CHECK(verification.ok());
  CHECK(verification->fault.has_value() == (file != sound));
  unlink(path.c_str());
  return 0;
}
