// A folder for one test, removed with it.
#ifndef EFEDLLM_TESTS_MODEL_TEMP_DIR_H_
#define EFEDLLM_TESTS_MODEL_TEMP_DIR_H_

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random.h"

namespace efedllm {

class TempDir {
 public:
  TempDir()
      : path_(absl::StrCat(std::filesystem::temp_directory_path().string(), "/efedllm-test-",
                           SecureRandomU64())) {
    std::filesystem::create_directories(path_);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(File(name), std::ios::binary) << bytes;
    return File(name);
  }
  // Paths of the files whose name has this ending.
  std::vector<std::string> Ending(const std::string& ending) const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      if (entry.path().extension() == ending) found.push_back(entry.path().string());
    }
    return found;
  }

 private:
  const std::string path_;
};

// Flips the lowest bit of one byte of a file.
inline void DamageFile(const std::string& path, uint64_t offset) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_MODEL_TEMP_DIR_H_
