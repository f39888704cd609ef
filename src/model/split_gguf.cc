#include "model/split_gguf.h"

#include <cstdint>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "model/gguf.h"

namespace efedllm {
namespace {

constexpr uint64_t kMaxParts = 65535;  // the format's own limit

struct Split {
  uint64_t number = 0;  // from 0
  uint64_t count = 1;
};

absl::Status About(absl::string_view path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<ModelContents> OpenOne(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::Open(path));
  absl::StatusOr<ModelContents> contents = ReadGguf(mapping.bytes());
  if (!contents.ok()) return About(path, contents.status());
  contents->parts[0].path = path;
  contents->parts[0].mapping = std::move(mapping);
  return contents;
}

// A whole number of the metadata; otherwise where the file has none.
absl::StatusOr<uint64_t> NumberOr(const ModelContents& contents, absl::string_view key,
                                  uint64_t otherwise) {
  const auto found = contents.values.find(key);
  if (found == contents.values.end()) return otherwise;
  if (const auto* number = std::get_if<uint64_t>(&found->second)) return *number;
  if (const auto* number = std::get_if<int64_t>(&found->second); number && *number >= 0) {
    return static_cast<uint64_t>(*number);
  }
  return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, " is not a whole number"));
}

absl::StatusOr<Split> SplitOf(const ModelContents& contents) {
  Split split;
  ASSIGN_OR_RETURN(split.number, NumberOr(contents, "split.no", 0));
  ASSIGN_OR_RETURN(split.count, NumberOr(contents, "split.count", 1));
  if (split.count == 0) split.count = 1;  // what some writers say for one file
  if (split.number < split.count && split.count <= kMaxParts) return split;
  return absl::InvalidArgumentError(absl::StrCat("it says to be part ", split.number + 1, " of ",
                                                 split.count, " (split.no, split.count)"));
}

std::string SuffixOf(const Split& split) {
  return absl::StrFormat("-%05d-of-%05d.gguf", split.number + 1, split.count);
}

// Opens part `number` of the model, which must be such.
absl::StatusOr<ModelContents> OpenPart(const std::string& given, absl::string_view stem,
                                       const Split& split) {
  const std::string path = absl::StrCat(stem, SuffixOf(split));
  absl::StatusOr<ModelContents> part = OpenOne(path);
  if (absl::IsNotFound(part.status())) {
    const size_t slash = path.rfind('/');
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    return absl::NotFoundError(absl::StrCat(given, ": ", name,
                                            " is missing beside it: the model has ", split.count,
                                            " parts, and all must lie in one folder"));
  }
  if (!part.ok()) return part.status();
  const absl::StatusOr<Split> found = SplitOf(*part);
  if (!found.ok()) return About(path, found.status());
  if (found->number == split.number && found->count == split.count) return part;
  return absl::InvalidArgumentError(absl::StrCat(path, ": inside, the file is part ",
                                                 found->number + 1, " of ", found->count,
                                                 ": it was renamed, or belongs to another model"));
}

}  // namespace

absl::StatusOr<ModelContents> OpenGguf(const std::string& path) {
  ASSIGN_OR_RETURN(ModelContents given, OpenOne(path));
  const absl::StatusOr<Split> split = SplitOf(given);
  if (!split.ok()) return About(path, split.status());
  if (split->count == 1) return given;
  if (!absl::EndsWith(path, SuffixOf(*split))) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": it is part ", split->number + 1, " of a split model, but its name ",
                     "doesn't end in ", SuffixOf(*split), ", so that the others can't be found"));
  }
  const std::string stem = path.substr(0, path.size() - SuffixOf(*split).size());

  ModelContents model;
  for (uint64_t i = 0; i < split->count; ++i) {
    ASSIGN_OR_RETURN(ModelContents part, OpenPart(path, stem, {i, split->count}));
    if (i == 0) {
      model = std::move(part);
      continue;
    }
    model.parts.push_back(std::move(part.parts[0]));
    model.tensors.insert(model.tensors.end(), std::make_move_iterator(part.tensors.begin()),
                         std::make_move_iterator(part.tensors.end()));
  }
  const absl::StatusOr<uint64_t> tensors =
      NumberOr(model, "split.tensors.count", model.tensors.size());
  if (!tensors.ok()) return About(path, tensors.status());
  if (*tensors == model.tensors.size()) return model;
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": its ", split->count, " parts have ", model.tensors.size(), " tensors, not ",
      *tensors, " as the first says (split.tensors.count): they belong to different models"));
}

}  // namespace efedllm
