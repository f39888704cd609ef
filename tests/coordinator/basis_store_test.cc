#include "coordinator/basis_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/file.h"
#include "common/random.h"
#include "model/model_file.h"
#include "model/temp_dir.h"
#include "svd/basis_builder.h"

namespace efedllm {
namespace {

constexpr uint32_t kWidth = 16;

BoundaryBasis SomeBasis(uint32_t boundary) {
  BoundarySample sample;
  sample.boundary = boundary;
  sample.rows = Matrix(200, kWidth);
  Random random(boundary + 1);
  for (float& x : sample.rows.ref().span()) x = static_cast<float>(random.Uniform() - 0.5);
  return *BuildBasis(sample);
}

BasisKey SomeKey(uint32_t boundary) {
  BasisKey key;
  key.model.fill(0x11);
  key.calibration.fill(0x22);
  key.boundary = boundary;
  return key;
}

std::string OnlyFile(const std::string& folder) {
  return std::filesystem::directory_iterator(folder)->path().string();
}

TEST(BasisStore, GivesBackWhatWasPut) {
  const TempDir dir;
  const BasisStore store(dir.path() + "/bases");
  EXPECT_EQ(store.Get(SomeKey(3), kWidth), nullptr);
  const BoundaryBasis basis = SomeBasis(3);
  ASSERT_TRUE(store.Put(SomeKey(3), basis).ok());
  const auto found = store.Get(SomeKey(3), kWidth);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->Serialize(), basis.Serialize());
  EXPECT_EQ(store.Get(SomeKey(2), kWidth), nullptr);
}

TEST(BasisStore, TakesNoOtherModelsAndNoOtherTexts) {
  const TempDir dir;
  const BasisStore store(dir.path());
  ASSERT_TRUE(store.Put(SomeKey(3), SomeBasis(3)).ok());
  BasisKey other = SomeKey(3);
  other.model[31] ^= 1;  // the same name, but for the header
  EXPECT_EQ(store.Get(other, kWidth), nullptr);
  other = SomeKey(3);
  other.calibration[0] ^= 1;
  EXPECT_EQ(store.Get(other, kWidth), nullptr);
  EXPECT_EQ(store.Get(SomeKey(3), kWidth * 2), nullptr);
}

TEST(BasisStore, IgnoresDamagedFilesWhereverTheDamageIs) {
  const TempDir dir;
  const BasisStore store(dir.path());
  ASSERT_TRUE(store.Put(SomeKey(3), SomeBasis(3)).ok());
  const std::string path = OnlyFile(dir.path());
  const std::string good = *ReadFile(path, 1 << 20);
  for (size_t at = 0; at < good.size(); at += 13) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x40);
    ASSERT_TRUE(WriteFileAtomically(path, bad, 0600).ok());
    EXPECT_EQ(store.Get(SomeKey(3), kWidth), nullptr) << at;
  }
  for (const size_t size : {size_t{0}, size_t{111}, size_t{112}, good.size() - 1}) {
    ASSERT_TRUE(WriteFileAtomically(path, good.substr(0, size), 0600).ok());
    EXPECT_EQ(store.Get(SomeKey(3), kWidth), nullptr) << size;
  }
  ASSERT_TRUE(store.Put(SomeKey(3), SomeBasis(3)).ok());
  EXPECT_NE(store.Get(SomeKey(3), kWidth), nullptr);
}

TEST(BasisStore, RemembersWhatTheOperatorChose) {
  const TempDir dir;
  const BasisStore store(dir.path() + "/bases");
  const BasisKey key = SomeKey(0);
  EXPECT_EQ(store.Chosen(key.model), std::nullopt);
  ASSERT_TRUE(store.Choose(key.model, key.calibration).ok());
  EXPECT_EQ(store.Chosen(key.model), key.calibration);
  ASSERT_TRUE(store.Choose(key.model, std::nullopt).ok());
  EXPECT_EQ(store.Chosen(key.model), std::nullopt);
}

TEST(BasisStore, ForgetsOneCalibrationOfAModel) {
  const TempDir dir;
  const BasisStore store(dir.path());
  BasisKey kept = SomeKey(1);
  kept.calibration.fill(0x33);
  ASSERT_TRUE(store.Put(SomeKey(1), SomeBasis(1)).ok());
  ASSERT_TRUE(store.Put(kept, SomeBasis(1)).ok());
  ASSERT_TRUE(store.Forget(SomeKey(1).model, SomeKey(1).calibration).ok());
  EXPECT_EQ(store.Get(SomeKey(1), kWidth), nullptr);
  EXPECT_NE(store.Get(kept, kWidth), nullptr);
}

TEST(ModelDigest, IsThatOfTheWeightsToo) {
  const auto seedling = [](const char* name) {
    return ModelDigest(
        *ModelFile::Open(std::string(EFEDLLM_SOURCE_DIR "/models/seedling/") + name));
  };
  EXPECT_EQ(seedling("seedling-q8_0.gguf"), seedling("seedling-q8_0.gguf"));
  EXPECT_NE(seedling("seedling-q8_0.gguf"), seedling("seedling-f16.gguf"));
  // One weight in the middle of the file.
  std::string bytes = *ReadFile(EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf", 1 << 24);
  const auto parsed = [&bytes] {
    return ModelDigest(
        *ModelFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  };
  const Sha256Digest before = parsed();
  bytes[bytes.size() - 1] = static_cast<char>(bytes[bytes.size() - 1] ^ 1);
  EXPECT_NE(parsed(), before);
}

}  // namespace
}  // namespace efedllm
