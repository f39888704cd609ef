// Reads the fields of a JSON object that a person or a stranger wrote: every number bounded, every
// unknown key named, the first error kept with its place ("nodes[2].memory: ...").
#ifndef EFEDLLM_SIMULATOR_JSON_FIELDS_H_
#define EFEDLLM_SIMULATOR_JSON_FIELDS_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// JSON text -> object. InvalidArgument: too long, nested too deep, a key twice, no object; says
// where.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text);

class JsonFields {
 public:
  // object is borrowed. where: its place, "" for the whole document. What is no object is an error.
  JsonFields(const nlohmann::json& object, std::string where);

  bool Has(const char* key) const;

  // Each marks its key as known. Without `otherwise` the key must be there. After an error they
  // return something harmless.
  double Number(const char* key, double least, double most, std::optional<double> otherwise = {});
  uint64_t Integer(const char* key, uint64_t least, uint64_t most,
                   std::optional<uint64_t> otherwise = {});
  bool Bool(const char* key, bool otherwise);
  // Printable, at most 64 characters.
  std::string Text(const char* key, std::optional<std::string> otherwise = {});
  // As Text, of at most 4096 characters.
  std::string Path(const char* key);
  // A number of bytes, or text like "16GiB".
  uint64_t Bytes(const char* key, uint64_t most, std::optional<uint64_t> otherwise = {});
  // nullptr: it isn't there, or is no object or array.
  const nlohmann::json* Object(const char* key);
  const nlohmann::json* Array(const char* key, size_t most);

  std::string Place(absl::string_view key) const;
  void Fail(absl::string_view key, absl::string_view what);
  void Take(const absl::Status& status);                 // an error of something inside
  const absl::Status& Error() const { return status_; }  // the first so far
  // The first error; else the first key that nobody asked for, as an error.
  absl::Status Finish();

 private:
  const nlohmann::json* Find(const char* key, bool required);
  std::string TextOf(const char* key, const nlohmann::json& value, size_t most);

  const nlohmann::json& object_;
  const std::string where_;
  std::vector<std::string> known_;
  absl::Status status_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_JSON_FIELDS_H_
