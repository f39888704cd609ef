#include "model/split_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "model/gguf_builder.h"
#include "model/temp_dir.h"
#include "model/tensor_hasher.h"

namespace efedllm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Three parts with a tensor each, as llama-gguf-split writes them.
class SplitGguf : public ::testing::Test {
 protected:
  SplitGguf() {
    for (uint16_t i = 0; i < 3; ++i) Write(i, {std::string(1, static_cast<char>('a' + i))});
  }

  std::string Path(int part) const {
    return dir_.File(absl::StrCat("model-0000", part + 1, "-of-00003.gguf"));
  }

  void Write(uint16_t part, const std::vector<std::string>& tensors, uint16_t number_in_file = 99) {
    GgufBuilder gguf;
    if (part == 0) gguf.String("general.name", "split");
    gguf.Scalar<uint16_t>("split.no", 2, number_in_file == 99 ? part : number_in_file);
    gguf.Scalar<uint16_t>("split.count", 2, 3).Scalar<int32_t>("split.tensors.count", 5, 3);
    for (const std::string& name : tensors) {
      gguf.Tensor(name, 0, {4}, std::string(16, static_cast<char>('0' + part)));
    }
    dir_.Write(absl::StrCat("model-0000", part + 1, "-of-00003.gguf"), gguf.Build());
  }

  static std::string ErrorOf(const std::string& path) {
    const auto file = ModelFile::Open(path);
    return file.ok() ? "" : std::string(file.status().message());
  }

  TempDir dir_;
};

TEST_F(SplitGguf, OpensWhicheverPartIsGiven) {
  for (int part = 0; part < 3; ++part) {
    const auto file = ModelFile::Open(Path(part));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(*file->GetString("general.name"), "split");
    EXPECT_EQ(file->tensors().size(), 3u);
    EXPECT_EQ(file->parts().size(), 3u);
    for (const char* name : {"a", "b", "c"}) {
      EXPECT_EQ(file->FindTensor(name)->bytes[0], '0' + (name[0] - 'a'));
      file->DropPages(*file->FindTensor(name));
    }
  }
}

TEST_F(SplitGguf, NamesThePartThatIsMissing) {
  std::remove(Path(1).c_str());
  const auto file = ModelFile::Open(Path(0));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ErrorOf(Path(0)), AllOf(HasSubstr(Path(0)),
                                      HasSubstr("model-00002-of-00003.gguf is missing beside it")));
}

TEST_F(SplitGguf, RefusesPartsThatDoNotBelongTogether) {
  Write(1, {"b"}, /*number_in_file=*/2);
  EXPECT_THAT(ErrorOf(Path(0)), AllOf(HasSubstr(Path(1)), HasSubstr("the file is part 3 of 3")));
  Write(1, {"a"});
  EXPECT_THAT(ErrorOf(Path(0)), HasSubstr("tensor a stands twice"));
  Write(1, {"b", "d"});
  EXPECT_THAT(ErrorOf(Path(0)), HasSubstr("parts have 4 tensors, not 3"));
}

TEST_F(SplitGguf, RefusesARenamedPart) {
  const std::string other = dir_.File("renamed.gguf");
  std::rename(Path(0).c_str(), other.c_str());
  EXPECT_THAT(ErrorOf(other), AllOf(HasSubstr(other), HasSubstr("-00001-of-00003.gguf")));
}

TEST_F(SplitGguf, NamesTheDamagedPart) {
  dir_.Write("model-00003-of-00003.gguf", "junk");
  EXPECT_THAT(ErrorOf(Path(0)), AllOf(HasSubstr(Path(2)), HasSubstr("not a GGUF file")));
}

TEST_F(SplitGguf, HashesWhatWouldBeInOneFile) {
  const auto file = ModelFile::Open(Path(0));
  ASSERT_TRUE(file.ok());
  const auto hasher = TensorHasher::Create(*file, dir_.File("state"));
  ASSERT_TRUE(hasher.ok()) << hasher.status();
  const auto hashed = (*hasher)->Hash(TensorSpec{"c", DType::kF32, 1, 4, {}});
  ASSERT_TRUE(hashed.ok()) << hashed.status();
  EXPECT_EQ(hashed->chunks[0], Sha256(BytesOf(std::string(16, '2'))));
}

}  // namespace
}  // namespace efedllm
