// Reads TOML that a person or a stranger wrote: every number bounded, every unknown key named, the
// first error kept with its line ("line 12: audit.floor must be a number from 0.001 to 1").
#ifndef EFEDLLM_INCENTIVE_TOML_FIELDS_H_
#define EFEDLLM_INCENTIVE_TOML_FIELDS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// A scalar of a document, by its kind, and the line where it stands.
struct TomlValue {
  enum class Kind { kInteger, kFloat, kText, kBool, kOther };

  Kind kind = Kind::kOther;
  int64_t integer = 0;
  double number = 0;  // of an integer too
  std::string text;
  bool truth = false;
  uint32_t line = 0;
};

// One table; a table within it is a table of its own.
struct TomlTable {
  std::string name;  // "" for the document itself
  uint32_t line = 0;
  std::map<std::string, TomlValue> values;
};

// A document of at most two levels: the top, [tables] of it, and [[lists]] of tables.
struct TomlDocument {
  TomlTable top;
  std::map<std::string, TomlTable> tables;
  std::map<std::string, std::vector<TomlTable>> lists;
};

// InvalidArgument: more than 64 KiB, not TOML, or nested deeper; with the line.
absl::StatusOr<TomlDocument> ParseToml(absl::string_view text);

class TomlFields {
 public:
  explicit TomlFields(const TomlTable& table) : table_(table) {}  // borrowed

  bool Has(absl::string_view key) const;
  // Each marks its key as known. Without `otherwise` the key must be there. After an error they
  // return something harmless.
  uint64_t Integer(absl::string_view key, uint64_t least, uint64_t most,
                   std::optional<uint64_t> otherwise = {});
  // A number of shares in millionths, rounded to the nearest: "0.05" is 50000. least and most are
  // millionths too.
  uint64_t Millionths(absl::string_view key, uint64_t least, uint64_t most,
                      std::optional<uint64_t> otherwise = {});
  // Printable, 1 to 64 characters.
  std::string Text(absl::string_view key, std::optional<std::string> otherwise = {});

  void Fail(absl::string_view key, absl::string_view what);
  // The first error; else the first key that nobody asked for, as an error.
  absl::Status Finish();

 private:
  const TomlValue* Find(absl::string_view key, bool required);

  const TomlTable& table_;
  std::vector<std::string> known_;
  absl::Status status_;
};

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_TOML_FIELDS_H_
