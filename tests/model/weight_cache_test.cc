#include "model/weight_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/random.h"
#include "model/gguf_builder.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

// A tensor of random bytes with its digests.
struct SomeTensor {
  SomeTensor(DType dtype, uint64_t rows, uint64_t cols) : spec{"t", dtype, rows, cols, {}} {
    Random random(rows);
    bytes.resize(spec.bytes());
    for (char& byte : bytes) byte = static_cast<char>(random.Next());
    for (uint64_t i = 0; i < spec.chunk_count(); ++i) spec.chunks.push_back(Sha256(Chunk(i)));
  }
  absl::Span<const uint8_t> Chunk(uint64_t i) const {
    return BytesOf(bytes).subspan(i * kChunkBytes, kChunkBytes);
  }

  TensorSpec spec;
  std::string bytes;
};

SomeTensor Matrix3Chunks() { return SomeTensor(DType::kQ8_0, 1000, 2048); }  // 2.07 MiB

std::string DataOf(const PackedTensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.data().data()), tensor.data().size());
}

TEST(PackedTensor, IsTheSameFromMemoryAndThroughTheCache) {
  TempDir dir;
  auto cache = *WeightCache::Open(dir.File("cache"));
  for (const SomeTensor& tensor :
       {SomeTensor(DType::kF32, 1, 100), SomeTensor(DType::kF32, 17, 33),
        SomeTensor(DType::kQ4_0, 100, 64), SomeTensor(DType::kQ6_K, 40, 512), Matrix3Chunks(),
        SomeTensor(DType::kF16, 50000, 70)}) {
    const auto memory = PackedTensor::FromGguf(tensor.spec, BytesOf(tensor.bytes));
    ASSERT_TRUE(memory.ok());
    const auto put = cache->Put(tensor.spec, BytesOf(tensor.bytes));
    ASSERT_TRUE(put.ok()) << put.status();
    const auto got = cache->Get(tensor.spec);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(DataOf(**memory), DataOf(**put));
    EXPECT_EQ(DataOf(**memory), DataOf(**got));
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*got)->data().data()) % kPackedAlignment, 0u);
    EXPECT_EQ((*got)->data().size(), PackedBytes(tensor.spec));
    EXPECT_EQ((*got)->rows(), tensor.spec.rows);
  }
}

TEST(WeightCache, NeedsAFolder) {
  EXPECT_EQ(WeightCache::Open("").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(WeightCache::Open("/proc/efedllm").ok());
}

TEST(WeightCache, FetchesInChunksAndKeepsThePackedForm) {
  TempDir dir;
  auto cache = *WeightCache::Open(dir.path());
  const SomeTensor tensor = Matrix3Chunks();
  EXPECT_EQ(cache->Get(tensor.spec).status().code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(*cache->ChunksHeld(tensor.spec), 0u);
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(cache->Finish(tensor.spec).ok(), false);
    ASSERT_TRUE(cache->AddChunk(tensor.spec, i, tensor.Chunk(i)).ok());
  }
  const auto packed = cache->Finish(tensor.spec);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(DataOf(**packed), DataOf(**PackedTensor::FromGguf(tensor.spec, BytesOf(tensor.bytes))));
  EXPECT_TRUE(dir.Ending(".part").empty());
  EXPECT_TRUE((*WeightCache::Open(dir.path()))->Get(tensor.spec).ok()) << "after a restart";
}

TEST(WeightCache, ResumesAfterARestartAndCutsADamagedTail) {
  TempDir dir;
  const SomeTensor tensor = Matrix3Chunks();
  {
    auto cache = *WeightCache::Open(dir.path());
    ASSERT_TRUE(cache->AddChunk(tensor.spec, 0, tensor.Chunk(0)).ok());
    ASSERT_TRUE(cache->AddChunk(tensor.spec, 1, tensor.Chunk(1)).ok());
  }
  auto cache = *WeightCache::Open(dir.path());
  EXPECT_EQ(*cache->ChunksHeld(tensor.spec), 2u);
  DamageFile(dir.Ending(".part")[0], kChunkBytes + 5);
  EXPECT_EQ(*cache->ChunksHeld(tensor.spec), 1u);
  std::filesystem::resize_file(dir.Ending(".part")[0], kChunkBytes + 77);  // a torn write
  EXPECT_EQ(cache->AddChunk(tensor.spec, 1, tensor.Chunk(1)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*cache->ChunksHeld(tensor.spec), 1u);
  ASSERT_TRUE(cache->AddChunk(tensor.spec, 1, tensor.Chunk(1)).ok());
  ASSERT_TRUE(cache->AddChunk(tensor.spec, 2, tensor.Chunk(2)).ok());
  EXPECT_TRUE(cache->Finish(tensor.spec).ok());
}

TEST(WeightCache, RefusesChunksThatAreNotWhatWasAskedFor) {
  TempDir dir;
  auto cache = *WeightCache::Open(dir.path());
  const SomeTensor tensor = Matrix3Chunks();
  EXPECT_EQ(cache->AddChunk(tensor.spec, 0, tensor.Chunk(1)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(cache->AddChunk(tensor.spec, 0, tensor.Chunk(0).first(100)).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(cache->AddChunk(tensor.spec, 1, tensor.Chunk(1)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(cache->AddChunk(tensor.spec, 3, {}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*cache->ChunksHeld(tensor.spec), 0u);
}

TEST(WeightCache, RemovesADamagedTensorAndSaysSo) {
  TempDir dir;
  auto cache = *WeightCache::Open(dir.path());
  const SomeTensor tensor = Matrix3Chunks();
  for (const uint64_t offset : {0u, 8u, 20u, 64u, 100000u}) {
    ASSERT_TRUE(cache->Put(tensor.spec, BytesOf(tensor.bytes)).ok());
    DamageFile(dir.Ending(".packed")[0], offset);
    EXPECT_EQ(cache->Get(tensor.spec).status().code(), absl::StatusCode::kNotFound) << offset;
    EXPECT_TRUE(dir.Ending(".packed").empty());
  }
  ASSERT_TRUE(cache->Put(tensor.spec, BytesOf(tensor.bytes)).ok());
  std::filesystem::resize_file(dir.Ending(".packed")[0], 10);
  EXPECT_EQ(cache->Get(tensor.spec).status().code(), absl::StatusCode::kNotFound);
}

TEST(WeightCache, OpenRemovesWhatACrashLeft) {
  TempDir dir;
  dir.Write("0123.packed.abcdef", "half");
  dir.Write("0123.part", "kept");
  ASSERT_TRUE(WeightCache::Open(dir.path()).ok());
  EXPECT_TRUE(dir.Ending(".abcdef").empty());
  EXPECT_EQ(dir.Ending(".part").size(), 1u);
}

TEST(WeightCache, SaysWhenTheFolderIsGone) {
  TempDir dir;
  const std::string folder = dir.File("cache");
  auto cache = *WeightCache::Open(folder);
  std::filesystem::remove_all(folder);
  const SomeTensor tensor(DType::kF32, 2, 8);
  EXPECT_THAT(std::string(cache->AddChunk(tensor.spec, 0, tensor.Chunk(0)).message()),
              HasSubstr(folder));
  EXPECT_THAT(std::string(cache->Put(tensor.spec, BytesOf(tensor.bytes)).status().message()),
              HasSubstr(folder));
}

}  // namespace
}  // namespace efedllm
